"""What every role needs of a host: paths, files that are written together, programs that run there.
Pure code only."""

from roles.host import paths as paths
from roles.host.hostfile import HostFile as HostFile
from roles.host.hostfile import archive as archive
from roles.host.hostfile import differing as differing
from roles.host.hostfile import parse_states as parse_states
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
