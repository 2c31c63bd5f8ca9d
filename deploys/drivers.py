"""From a host as the provider hands it over to GPUs that are ready to serve, and the proof."""

from roles.fleet import stages
from roles.fleet.admission import passed
from roles.fleet.deploy import announced

fleet = announced(several=True)

if this_host := passed(fleet, engine=False):
    stages.drivers(fleet, this_host, prove=True)
