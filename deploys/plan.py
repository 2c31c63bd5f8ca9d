"""Show the plan, checked against what the hosts report. Changes nothing."""

from roles.stages.admission import compared
from roles.stages.load import announced

compared(announced(several=True))
