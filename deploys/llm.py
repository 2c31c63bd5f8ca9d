"""From GPU hosts to one served, load-balanced, validated LLM endpoint."""

from roles.fleet import stages
from roles.fleet.deploy import admitted, announced

fleet = announced()
this_host = admitted(fleet)

if this_host:
    stages.engines(fleet, this_host)
    stages.balancers(fleet, this_host)
