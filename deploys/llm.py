"""From GPU hosts to one served, load-balanced, validated LLM endpoint."""

from roles.stages import stages
from roles.stages.admission import passed
from roles.stages.load import announced

fleet = announced()
# `--data validate=false` leaves the proof out.
validate = stages.wants_validation()

if validate:
    stages.report(fleet)
if this_host := passed(fleet):
    stages.drivers(fleet, this_host)
    stages.barrier("GPUs are ready")
    stages.engines(fleet, this_host)
    stages.barrier("Engines are installed, and fresh hosts have started")
    stages.roll(fleet, this_host)
    stages.barrier("Replicas serve")
    stages.balancers(fleet, this_host)
    stages.barrier("Balancers are done")
    if validate:
        stages.validation(fleet, this_host)
