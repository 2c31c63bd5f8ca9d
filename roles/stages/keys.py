"""The stage that provides the key between balancers and engines, before it is needed."""

from pathlib import Path

import click

from roles.balancer import make_key
from roles.fleet.checked import RefusedError
from roles.stages.ending import hide_keys
from roles.stages.run import Run


def engine_key(run: Run, make: bool) -> None:
    """Make sure that the engines' key exists; with `make` this run makes a missing one.

    RefusedError where it is not, with what to do.
    """
    file = engine_key_file(run)
    if file is None:
        return
    with run.lock:
        if not make and not file.expanduser().exists():
            raise RefusedError(
                f"balancer.engine_key_file: {file} is not there; copy it from where this inventory "
                "was deployed, or deploy with deploys/llm.py, which makes it"
            )
        try:
            made = make and make_key(file)
        except ValueError as error:
            raise RefusedError(f"balancer.engine_key_file: {error}") from None
    hide_keys(run)
    if made:
        click.echo(
            f"\nmade {file}, the key that balancers send to the engines; keep it: whoever else "
            "deploys this inventory needs the same file",
            err=True,
        )


def engine_key_file(run: Run) -> Path | None:
    """The file of the key between balancers and engines; None if each service has its own."""
    balancer = run.fleet.settings.balancer
    own = all(service.route.engine_key_file for service in run.fleet.settings.services)
    return balancer.engine_key_file if balancer and not own else None
