"""Operations that look and change nothing.

pyinfra counts an operation that yields no command as "No changes", so these work in their body,
only while the run executes, and yield a command only to fail their host.
"""

import ssl
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from roles.host import PROBE, SecretInput, bundle
from roles.validation.balancer import Endpoint, ask_endpoint, judge_endpoint
from roles.validation.facts import Certificates, Observed
from roles.validation.observations import PlannedReplica
from roles.validation.report import clean
from roles.validation.settings import ValidationSettings
from roles.validation.verdicts import Verdict, judge_host, judge_unobserved

PROGRAM = Path(__file__).with_name("host_program.py")
Record = Callable[[Sequence[Verdict]], None]
Verification = Generator[FunctionCommand, None, None]


def host_program(
    replicas: Sequence[PlannedReplica], key: str, settings: ValidationSettings
) -> tuple[str, float]:
    """The program that the host runs, and after how many seconds it has ended whatever happens."""
    deadline_s = 3 * settings.completion_timeout_s + settings.load_s + 60
    task = {
        "replicas": [
            {"name": one.name, "unit": one.unit, "base_url": one.base_url, "model": one.model}
            for one in replicas
        ],
        "key": key,
        "load_s": settings.load_s,
        "load_concurrency": settings.load_concurrency,
        "load_max_tokens": settings.load_max_tokens,
        "completion_timeout_s": settings.completion_timeout_s,
        "deadline_s": deadline_s,
    }
    run = "main(TASK, chat, chat_stream, in_parallel)"
    return bundle([PROBE, PROGRAM], task, run), deadline_s


@operation()
def replicas_work(
    replicas: Sequence[PlannedReplica], key: str, settings: ValidationSettings, record: Record
) -> Verification:
    """
    Check every replica of the host from the host itself, and fail the host where a check fails.

    + replicas: what is planned on this host
    + key: the API key of its engines
    + record: takes the verdicts, of whatever outcome
    """
    # Engines are asked when all that comes before has been done, never while pyinfra prepares.
    if not host.state.is_executing:
        host.noop("replicas are checked when the run executes")
        return
    program, deadline_s = host_program(replicas, key, settings)
    seen = host.get_fact(
        Observed, _stdin=SecretInput(program), _timeout=int(deadline_s) + 30, _ignore_errors=True
    )
    verdicts = (
        judge_host(host.name, replicas, seen, settings) if seen else judge_unobserved(host.name)
    )
    yield from _settle(verdicts, record)


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

    + endpoint: the balancer's address, the served model and what is behind it
    + key: an API key that the balancer accepts
    + certificate_path: PEM file on the balancer host that alone is trusted; None: the system's
    + record: takes the verdicts, of whatever outcome
    """
    if not host.state.is_executing:
        host.noop("the endpoint is checked when the run executes")
        return
    yield from _settle(_endpoint_verdicts(endpoint, key, certificate_path, settings), record)


def _endpoint_verdicts(
    endpoint: Endpoint, key: str, certificate_path: str | None, settings: ValidationSettings
) -> list[Verdict]:
    pem = None
    if certificate_path:
        pem = host.get_fact(Certificates, path=certificate_path, _ignore_errors=True)
    try:
        if pem == "":
            raise ssl.SSLError(f"no certificate in {certificate_path}")
        return judge_endpoint(host.name, endpoint, ask_endpoint(endpoint, key, pem, settings))
    except ssl.SSLError as error:
        evidence = f"its certificate could not be read: {error}"
        return [Verdict(host.name, endpoint.base_url, "certificate", "fail", evidence)]


def _settle(verdicts: Sequence[Verdict], record: Record) -> Verification:
    record(verdicts)
    failed = [verdict for verdict in verdicts if verdict.outcome == "fail"]
    if failed:
        yield FunctionCommand(fail_host, (failed,), {})
    else:
        host.noop(f"{len(verdicts)} checks, none failed")


def fail_host(state: State, host: Host, failed: Sequence[Verdict]) -> bool:
    """Name the failed checks; False makes pyinfra fail this host and no other."""
    for verdict in failed:
        text = clean(f"{verdict.subject} {verdict.check}: {verdict.evidence}")
        host.log_styled(f"Validation failed: {text}", fg="red", log_func=logger.error)
    # pyinfra does so itself, but for --no-wait, where the exit status would be 0.
    state.failed_hosts.add(host)
    return False
