"""Show the replicas that the watchdog has quarantined; `--data lift=HOST/REPLICA` lifts one."""

from roles.stages.load import load
from roles.stages.quarantine import quarantine

quarantine(load())
