"""Runs on a host, after probe.py and serving.py: waits until the replicas `TASK["names"]` serve.

The manifest describes a replica. One that an older version deployed has no entry there."""

import sys

from roles.host.legacy import legacy_key, legacy_replica
from roles.host.probe import TASK
from roles.host.serving import LaunchError, key_of, read_manifest, wait


def main():
    """Wait for each replica; exit with status 1 and its log if one does not serve."""
    try:
        known = read_manifest()
        for name in TASK["names"]:
            replica = known.get(name)
            key = key_of(replica) if replica else legacy_key()
            phases = TASK.get("phases", {}).get(name, ())
            replica = dict(replica or legacy_replica(name), phases=phases)
            wait(replica, key, TASK["start_timeout_s"])
    except (LaunchError, OSError, ValueError, KeyError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
