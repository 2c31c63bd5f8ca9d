"""What every role needs of a host: paths, files that are written together, programs that run there.
Pure code only."""

from roles.host import paths as paths
from roles.host.hostfile import HostFile as HostFile
from roles.host.hostfile import archive as archive
from roles.host.hostfile import differing as differing
from roles.host.hostfile import parse_states as parse_states
from roles.host.local_files import check_private as check_private
from roles.host.local_files import read_bytes as read_bytes
from roles.host.local_files import read_file as read_file
from roles.host.program import AWAIT_SERVING as AWAIT_SERVING
from roles.host.program import LEGACY as LEGACY
from roles.host.program import PROBE as PROBE
from roles.host.program import SERVING as SERVING
from roles.host.program import SecretInput as SecretInput
from roles.host.program import bundle as bundle
from roles.host.question import END as END
from roles.host.question import SUDO as SUDO
from roles.host.question import Part as Part
from roles.host.question import Sections as Sections
from roles.host.question import parse_answers as parse_answers
from roles.host.question import require as require
from roles.host.settings import DAY_S as DAY_S
from roles.host.settings import Address as Address
from roles.host.settings import EnginePort as EnginePort
from roles.host.settings import HostAddress as HostAddress
from roles.host.settings import HostNetwork as HostNetwork
from roles.host.settings import LocalFile as LocalFile
from roles.host.settings import PublicPort as PublicPort
from roles.host.settings import Several as Several
from roles.host.settings import StrictSettings as StrictSettings
from roles.host.settings import check_address as check_address
from roles.host.settings import check_host_name as check_host_name
from roles.host.settings import check_path as check_path
from roles.host.settings import check_url as check_url
