"""pyinfra's own settings for every run from this folder."""

from pyinfra import config

from roles.fleet.checked import check_command
from roles.host.connection import make_robust
from roles.stages.ending import begin

# Hosts are reached as an ordinary user; what needs root is done with passwordless sudo.
config.SUDO = True
# One failed host must not stop the others: a roll is stopped by the roll itself.
config.FAIL_PERCENT = 100

make_robust()
# What cannot go well is said before anything is done.
check_command()
# The screen is calm, and every run ends with a verdict.
begin()
