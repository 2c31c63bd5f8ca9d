"""From GPU hosts to served, load-balanced, validated LLM endpoints."""

from roles.stages.admission import admit
from roles.stages.balancers import balancers
from roles.stages.barrier import barrier
from roles.stages.drivers import drivers
from roles.stages.engines import engines
from roles.stages.hold import hold
from roles.stages.keys import engine_key
from roles.stages.load import load
from roles.stages.roll import roll
from roles.stages.validation import report, validation, wants_validation
from roles.stages.watchdog import watchdog

run = load()
report(run)
engine_key(run, make=True)

if admit(run):
    hold(run)
    drivers(run)
    barrier("GPUs are ready")
    # A host that rebooted has let go.
    hold(run)
    engines(run)
    barrier("Engines are installed, and fresh hosts have started")
    roll(run)
    watchdog(run)
    barrier("Replicas serve")
    balancers(run)
    barrier("Balancers are done")
    # `--data validate=false` leaves the proof out.
    if wants_validation():
        validation(run)
