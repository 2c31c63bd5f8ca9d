"""Record the GPUs of every host in inventories/hardware/. Changes nothing on hosts."""

from roles.stages.discovery import discover
from roles.stages.run import Run

discover(Run.current())
