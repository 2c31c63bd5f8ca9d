"""How an operation of any role fails its own host, and no other."""

from pyinfra import logger
from pyinfra.api import FunctionCommand, State
from pyinfra.api.host import Host


def failing(why: str) -> FunctionCommand:
    """A command to be yielded: it fails this host alone, with the reason in print.

    An exception in an operation would end the run for every host.
    """
    return FunctionCommand(_fail, (why,), {})


def _fail(state: State, host: Host, why: str) -> bool:
    host.log_styled(why, fg="red", log_func=logger.error)
    return False
