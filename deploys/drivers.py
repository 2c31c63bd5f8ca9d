"""From a host as the provider hands it over to GPUs that are ready to serve, and the proof."""

from roles.stages import stages
from roles.stages.admission import passed
from roles.stages.load import announced

fleet = announced(several=True)

if this_host := passed(fleet, engine=False):
    stages.drivers(fleet, this_host, prove=True)
