"""Runs on a host, after probe.py and serving.py: waits until the replicas `TASK["names"]` serve.

The manifest describes a replica. One that an older version deployed has no entry there."""

import sys

from roles.host.legacy import legacy_key, legacy_replica
from roles.host.probe import TASK
from roles.host.serving import key_of, read_manifest, wait_all


def main():
    """Wait for all replicas at once; exit with status 1, each that does not serve and why."""
    try:
        known = read_manifest()
        waited = [_to_wait_for(name, known.get(name)) for name in TASK["names"]]
        errors = [error for _, error in wait_all(waited, TASK["start_timeout_s"]) if error]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(str(error))
    if errors:
        sys.exit("\n".join([*[error.problem for error in errors[1:]], str(errors[0])]))


def _to_wait_for(name, known):
    """A replica, as its manifest or an earlier version has it, and its key."""
    key = key_of(known) if known else legacy_key()
    phases = TASK.get("phases", {}).get(name, ())
    first = name in TASK.get("listens_first", ())
    return dict(known or legacy_replica(name), phases=phases, listens_first=first), key


if __name__ == "__main__":
    main()
