"""From GPU hosts to one served, load-balanced, validated LLM endpoint."""

from pyinfra import host

from roles.fleet import stages
from roles.fleet.deploy import admitted, announced

fleet = announced()
stages.report(fleet)

if this_host := admitted(fleet):
    stages.engines(fleet, this_host)
    stages.balancers(fleet, this_host)
    # CI that only wants to know whether anything would change leaves the proof out.
    if host.data.get("validate", True):
        stages.validation(fleet, this_host)
