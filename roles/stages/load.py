"""The first stage of every deploy: begins its run, and prints or logs the plan."""

import click

from roles.declaration import DeclarationError, saved_plan_of, write_whole
from roles.declaration.inventory import declaration
from roles.fleet import build, saved_plan_problem, unknown_hosts
from roles.fleet.checked import RefusedError
from roles.plan import saved
from roles.stages.discovery import accept_hardware
from roles.stages.ending import begin_run, note
from roles.stages.messages import wants
from roles.stages.run import Run
from roles.topology import explain


def load(whole: bool = False) -> Run:
    """This run. Before anything is done its plan is logged, or printed with `whole` or pyinfra's
    `-v`."""
    run = Run.current()
    begin_run(run)
    with run.lock:
        if not run.loaded:
            if wants("accept_hardware", default=False):
                accept_hardware(run)
            _read_again(run)
            plans = "".join(f"\n{explain(plan)}" for plan in run.fleet.plans)
            if whole or run.state.print_noop_info:
                click.echo(plans, err=True)
            else:
                note(run, plans)
            _hold_to_saved_plan(run)
            run.loaded = True
    return run


def _read_again(run: Run) -> None:
    """Build the fleet again if its inventory or recording has changed since it was checked, or if
    GPUs are unknown; RefusedError where anything is wrong."""
    try:
        found = declaration(run.file, run.state.inventory)
        if found != run.declaration or unknown_hosts(run.fleet.hosts):
            run.declaration, run.fleet = found, build(found)
    except DeclarationError as error:
        raise RefusedError(str(error)) from None


def _hold_to_saved_plan(run: Run) -> None:
    """Stop where the plan differs from the saved one, or save it if --data accepts it."""
    problem = saved_plan_problem(run.file, run.fleet.plans)
    if problem and not wants("accept_plan", default=False):
        raise RefusedError(problem)
    if problem:
        file = saved_plan_of(run.file)
        try:
            write_whole(file, saved(run.fleet.plans))
        except ValueError as error:
            raise RefusedError(str(error)) from None
        click.echo(f"the plan is accepted and saved in {file}", err=True)
