"""The watchdog and its root helper: programs of a GPU host, standard library of Python 3.8 only."""
