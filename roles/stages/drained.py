"""What is drained at the balancers of a run, by whom and why."""

from pyinfra import host

from roles.balancer import Drain, drains_of_people
from roles.declaration import BALANCERS
from roles.host.outcome import say
from roles.stages.answers import ask_balancer
from roles.stages.run import Run


def show_drains(run: Run) -> None:
    """Print what people, and who else, have drained at this balancer."""
    if BALANCERS not in run.fleet.host(host.name).roles:
        return
    ask_balancer(run)
    for one in run.balancers[host.name].drains if host.name in run.balancers else ():
        say(str(one))


def people_drains(run: Run) -> tuple[Drain, ...]:
    """What people have drained, on any balancer of the run."""
    return drains_of_people(one for state in run.balancers.values() for one in state.drains)
