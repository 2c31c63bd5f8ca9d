"""Sets of files written on a host together: atomically, checked first, in one round trip."""

from roles.files.hostfile import HostFile as HostFile
from roles.files.hostfile import archive as archive
from roles.files.hostfile import differing as differing
