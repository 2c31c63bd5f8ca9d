"""What every role needs of a host: paths, files that are written together, programs that run there.
Pure code only."""

from roles.host.hostfile import HostFile as HostFile
from roles.host.hostfile import archive as archive
from roles.host.hostfile import differing as differing
from roles.host.program import PROBE as PROBE
from roles.host.program import SERVING as SERVING
from roles.host.program import SERVING_AGAIN as SERVING_AGAIN
from roles.host.program import SecretInput as SecretInput
from roles.host.program import bundle as bundle
