"""Record the GPUs of every host in inventories/hardware/. Changes nothing on hosts."""

from roles.fleet.recording import discovered

discovered()
