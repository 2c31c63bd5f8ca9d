"""Validation of hosts and of the endpoint; the report comes at the very end of the run."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from pyinfra import host
from pyinfra.api import deploy

from roles.validation.balancer import Endpoint
from roles.validation.observations import PlannedReplica
from roles.validation.operations import endpoint_works, replicas_work
from roles.validation.run import current
from roles.validation.settings import ValidationSettings


def report_at_end(
    settings: ValidationSettings,
    planned: Iterable[str],
    stopped: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Have this run end with a report that names every planned host (GPU hosts, balancers).

    `stopped` says of hosts, at the end, why they were stopped before anything was done there.

    Called first in a deploy file, so that hosts that cannot be reached, or that stop before they
    are validated, stand in the report as failed. Hosts outside --limit are left out.
    """
    run = current(host.state, settings.report_dir)
    run.plan(planned)
    run.stopped = stopped


@deploy("Validation")
def validate_host(
    settings: ValidationSettings, replicas: Sequence[PlannedReplica], key: str
) -> None:
    """Check every replica of this host from the host itself; a failed check fails the host."""
    run = current(host.state, settings.report_dir)
    run.plan([host.name])
    replicas_work(
        name="Replicas answer, and their GPUs work",
        replicas=replicas,
        key=key,
        settings=settings,
        record=run.record,
    )


@deploy("Validation")
def validate_balancer(
    settings: ValidationSettings,
    endpoint: Endpoint,
    key: str,
    certificate_path: str | None = None,
) -> None:
    """Check the endpoint from the control machine; a failed check fails the balancer host.

    `certificate_path` is a PEM file on the balancer host, read when the run executes: it alone is
    trusted. Without it the certificate must be one that the control machine trusts.
    """
    run = current(host.state, settings.report_dir)
    run.plan([host.name])
    endpoint_works(
        name="The endpoint answers",
        endpoint=endpoint,
        key=key,
        certificate_path=certificate_path,
        settings=settings,
        record=run.record,
    )
