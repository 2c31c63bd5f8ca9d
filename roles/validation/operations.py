"""Operations that validate hosts and endpoints, and change nothing.

pyinfra counts an operation that yields no command as "No changes". These work in their body while
the run executes, and yield a command only to fail their host.
"""

import ssl
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from roles.balancer import BalancerState, parse_state
from roles.balancer.facts import BalancerFacts
from roles.checks import Check, failed
from roles.hardware import readings
from roles.host import PROBE, SecretInput, bundle
from roles.host.outcome import failing_checks
from roles.validation.balancer import (
    Endpoint,
    ask_endpoint,
    judge_endpoint,
    reasons_out,
    unseen_upstreams,
)
from roles.validation.facts import Certificates, Observations
from roles.validation.observations import PlannedReplica
from roles.validation.settings import ValidationSettings
from roles.validation.verdicts import judge_host, judge_unobserved

PROGRAM = Path(__file__).with_name("host_program.py")
RECOGNITION = Path(__file__).with_name("recognition.py")
Record = Callable[[Sequence[Check]], None]
Verification = Generator[FunctionCommand, None, None]


def host_program(
    replicas: Sequence[PlannedReplica],
    settings: ValidationSettings,
    tool: readings.Tool,
) -> tuple[str, float]:
    """The program for the host, and after how many seconds it ends in any case.

    `tool` reads the host's GPUs.
    """
    # A completion, a stream, the end of the load, each ability and each adapter.
    more = (len(one.abilities) + len(one.adapters) for one in replicas)
    answers = 3 + max(more, default=0)
    deadline_s = answers * settings.completion_timeout_s + settings.load_s + 60
    task = {
        "replicas": [
            {
                "name": one.name,
                "unit": one.unit,
                "base_url": one.base_url,
                "model": one.model,
                "key": one.key,
                "abilities": list(one.abilities),
                "task": one.task,
                "adapters": dict(one.adapters),
            }
            for one in replicas
        ],
        "gpus": {
            "vendor": tool.vendor,
            "commands": tool.commands,
            "load": tool.load,
            "pid": tool.pid,
        },
        "load_s": settings.load_s,
        "load_concurrency": settings.load_concurrency,
        "load_max_tokens": settings.load_max_tokens,
        "completion_timeout_s": settings.completion_timeout_s,
        "deadline_s": deadline_s,
    }
    run = "main(TASK, PROOFS, chat_stream, served_models, in_parallel)"
    return bundle([PROBE, RECOGNITION, PROGRAM], task, run), deadline_s


@operation()
def replicas_work(
    replicas: Sequence[PlannedReplica],
    settings: ValidationSettings,
    tool: readings.Tool,
    record: Record,
) -> Verification:
    """
    Check every replica of the host from the host itself, and fail the host where a check fails.

    + replicas: what is planned on this host
    + tool: reads the host's GPUs
    + record: takes all checks
    """
    # Engines are asked only after all earlier operations, never while pyinfra prepares.
    if not host.state.is_executing:
        host.noop("replicas are checked when the run executes")
        return
    program, deadline_s = host_program(replicas, settings, tool)
    seen = host.get_fact(
        Observations,
        _stdin=SecretInput(program),
        _timeout=int(deadline_s) + 30,
        _ignore_errors=True,
    )
    checks = (
        judge_host(host.name, replicas, seen, settings) if seen else judge_unobserved(host.name)
    )
    yield from _record(checks, record)


@operation()
def endpoint_works(
    endpoint: Endpoint,
    key: str,
    certificate_path: str | None,
    settings: ValidationSettings,
    record: Record,
) -> Verification:
    """
    Check the endpoint from the control machine, and fail the balancer host where a check fails.

    + endpoint: the planned endpoint
    + key: an API key that the balancer accepts
    + certificate_path: a PEM file on the balancer's host, which alone is trusted; None: the
      certificates of the control machine's system are trusted
    + record: takes all checks
    """
    if not host.state.is_executing:
        host.noop("the endpoint is checked when the run executes")
        return
    yield from _record(_endpoint_checks(endpoint, key, certificate_path, settings), record)


def _endpoint_checks(
    endpoint: Endpoint, key: str, certificate_path: str | None, settings: ValidationSettings
) -> list[Check]:
    pem = None
    if certificate_path:
        pem = host.get_fact(Certificates, path=certificate_path, _ignore_errors=True)
    try:
        if pem == "":
            raise ssl.SSLError(f"no certificate in {certificate_path}")
        seen = ask_endpoint(endpoint, key, pem, settings)
        unseen = unseen_upstreams(endpoint.upstreams, seen.spread) if seen.spread else []
        why_out = reasons_out(_balancer_state(endpoint.balancer), unseen) if unseen else {}
        return judge_endpoint(host.name, endpoint, seen, why_out)
    except ssl.SSLError as error:
        evidence = f"its certificate could not be read: {error}"
        return [Check("certificate", endpoint.base_url, "fail", evidence, host=host.name)]


def _balancer_state(kind: str) -> BalancerState | None:
    """The state that a balancer was last given; None where it cannot be read."""
    found = host.get_fact(BalancerFacts, kind=kind, _ignore_errors=True)
    try:
        return parse_state(found.state)
    except ValueError:
        return None


def _record(checks: Sequence[Check], record: Record) -> Verification:
    record(checks)
    if failed(checks):
        yield failing_checks(checks, "Validation")
    else:
        host.noop(f"{len(checks)} checks, none failed")
