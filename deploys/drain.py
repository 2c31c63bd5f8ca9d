"""Send no new requests to a host, a replica or a GPU until it is undrained.

`--data host=HOST`, `replica=HOST/NAME` or `gpu=HOST/INDEX`, with `reason=WHY`.
"""

from roles.stages.drains import drain
from roles.stages.load import load

drain(load())
