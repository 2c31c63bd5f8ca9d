"""The stage that sees to the key between balancers and engines, before anybody needs it."""

import click
from pyinfra.api.exceptions import PyinfraError

from roles.balancer import make_key
from roles.stages.ending import hide_keys
from roles.stages.run import Run


def engine_key(run: Run, make: bool) -> None:
    """See that the engines' key is there, made by this run where it is missing and `make` is said.

    PyinfraError where it is not, with what to do.
    """
    balancer = run.fleet.settings.balancer
    own = all(service.route.engine_key_file for service in run.fleet.settings.services)
    file = balancer.engine_key_file if balancer else None
    if own or file is None:
        return
    with run.lock:
        if not make and not file.expanduser().exists():
            raise PyinfraError(
                f"balancer.engine_key_file: {file} is not there; copy it from where this inventory "
                "was deployed, or deploy with deploys/llm.py, which makes it"
            )
        try:
            made = make and make_key(file)
        except ValueError as error:
            raise PyinfraError(f"balancer.engine_key_file: {error}") from None
    hide_keys(run)
    if made:
        click.echo(
            f"\nmade {file}, the key that balancers send to the engines; keep it: whoever else "
            "deploys this inventory needs the same file",
            err=True,
        )
