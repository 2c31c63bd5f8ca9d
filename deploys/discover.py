"""Record the GPUs of every host in inventories/hardware/. Changes nothing on hosts."""

from roles.stages.discovery import discovered

discovered()
