"""Print the fleet as it is: replicas, their state and progress, drains and quarantines."""

from roles.stages.load import load
from roles.stages.status import status

status(load())
