"""A limit in time for running inventory files, which are programs."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# An inventory that asks a provider for its hosts takes seconds.
LOAD_S = 60.0
# A file may catch the first error; the limit is then raised again and again.
_AGAIN_S = 0.5


class LoadTimeoutError(BaseException):
    """A file runs longer than the limit. No Exception, as files catch these."""


@contextmanager
def load_limit(limit_s: float) -> Iterator[None]:
    """LoadTimeoutError in a file that is run here, loops and blocking calls included.

    It takes SIGALRM, which only a main thread may do; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise LoadTimeoutError(
            f"takes longer than {limit_s:g} s to load; end its loop or wait there"
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit_s, _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
