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


def load(shown: bool = False) -> Run:
    """This run. Before anything is done its plan is logged as a whole; it is printed, too, with
    `shown` or pyinfra's `-v`, in short unless --data explain=true."""
    run = Run.current()
    begin_run(run)
    with run.lock:
        if not run.loaded:
            if wants("accept_hardware", default=False):
                accept_hardware(run)
            _read_again(run)
            whole = wants("explain", default=False)
            is_shown = shown or run.state.print_noop_info
            if is_shown:
                click.echo(_plans(run, whole), err=True)
            if is_shown and not whole:
                click.echo("Memory sums and rejected shapes: --data explain=true", err=True)
            if not is_shown or not whole:
                note(run, _plans(run, whole=True))
            _hold_to_saved_plan(run)
            run.loaded = True
    return run


def _plans(run: Run, whole: bool) -> str:
    return "".join(f"\n{explain(plan, whole)}" for plan in run.fleet.plans)


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
