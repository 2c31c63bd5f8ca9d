"""Show the plan, checked against what the hosts report. Changes nothing."""

from roles.fleet.admission import compared
from roles.fleet.deploy import announced

compared(announced(several=True))
