"""pyinfra's own settings for runs of ours."""

from pyinfra import config

from roles.fleet.checked import check_command
from roles.host.connection import make_robust
from roles.stages.ending import begin


def configure() -> None:
    """Set pyinfra up for the run that begins; to be called by config.py, which pyinfra reads first.

    That file may change what is set here, after the call.
    """
    # Hosts are reached as an ordinary user; what needs root is done with passwordless sudo.
    config.SUDO = True
    # One failed host must not stop the others: a roll is stopped by the roll itself.
    config.FAIL_PERCENT = 100
    make_robust()
    # What cannot go well is said before anything is done.
    check_command()
    # The screen is calm, and every run ends with a verdict.
    begin()
