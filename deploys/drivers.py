"""From a host as the provider hands it over to GPUs that are ready to serve, and the proof."""

from roles.stages.admission import admit
from roles.stages.drivers import drivers
from roles.stages.hold import hold
from roles.stages.load import load
from roles.stages.validation import report

run = load()
report(run)

if admit(run, engine=False):
    hold(run)
    drivers(run, prove=True)
