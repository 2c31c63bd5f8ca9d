"""Show the plan, checked against what the hosts report. Changes nothing."""

from roles.stages.admission import compare
from roles.stages.load import load

compare(load(shown=True))
