"""Deploys that validate hosts and endpoints; their checks go into the run's report."""

from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import deploy

from roles.checks.deploy import report_of
from roles.hardware import readings
from roles.validation.balancer import Endpoint
from roles.validation.observations import PlannedReplica
from roles.validation.operations import endpoint_works, replicas_work
from roles.validation.settings import ValidationSettings


@deploy("Validation")
def validate_host(
    settings: ValidationSettings, replicas: Sequence[PlannedReplica], tool: readings.Tool
) -> None:
    """Check every replica of this host from the host itself; a failed check fails the host.

    `tool` reads its GPUs (`roles.hardware.readings.tool_of`).
    """
    replicas_work(
        name="Replicas answer, and their GPUs work",
        replicas=replicas,
        settings=settings,
        tool=tool,
        record=report_of(host.state).record,
    )


@deploy("Validation")
def validate_balancer(
    settings: ValidationSettings,
    endpoint: Endpoint,
    key: str,
    certificate_path: str | None = None,
) -> None:
    """Check the endpoint from the control machine; a failed check fails the balancer host.

    `certificate_path` is a PEM file on the balancer's host; it is read when the run executes, and
    no other certificate is trusted. Without it the certificates of the control machine's system are
    trusted.
    """
    endpoint_works(
        name="The endpoint answers",
        endpoint=endpoint,
        key=key,
        certificate_path=certificate_path,
        settings=settings,
        record=report_of(host.state).record,
    )
