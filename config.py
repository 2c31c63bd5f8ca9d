"""pyinfra's own settings for every run from this folder."""

from pyinfra import config

from roles.fleet.checked import check_command
from roles.host.connection import make_robust
from roles.stages.ending import begin

# Hosts are reached as an ordinary user; what needs root is done with passwordless sudo.
config.SUDO = True
# One failed host must not stop the others; a rolling update decides for itself when to stop.
config.FAIL_PERCENT = 100

make_robust()
# Wrong commands are refused before anything is done.
check_command()
# Every run shows its progress, and ends with a verdict.
begin()
