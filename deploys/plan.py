"""Show the plan, checked against what the hosts report. Changes nothing."""

from roles.fleet.deploy import admitted, announced

admitted(announced(several=True))
