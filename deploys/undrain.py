"""Send requests again to what deploys/drain.py drained, once its replicas are proved.

`--data host=HOST`, `replica=HOST/NAME` or `gpu=HOST/INDEX`, as it was drained.
"""

from roles.stages.drains import undrain
from roles.stages.keys import engine_key
from roles.stages.load import load
from roles.stages.validation import report

run = load()
report(run)
engine_key(run, make=False)
undrain(run)
