"""Runs on a host, after probe.py and serving.py: ends once every planned replica serves."""

import sys

from roles.host.probe import TASK
from roles.host.serving import LaunchError, wait


def main():
    """Wait for each replica; the exit status is 1, with its log, where one does not serve."""
    try:
        for replica in TASK["replicas"]:
            wait(replica["name"], replica["port"], TASK["model"], TASK["key"])
    except LaunchError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
