"""Checks of an endpoint as its clients use it: requests from the control machine through the
balancer."""

import re
import secrets
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from roles.balancer import DRAINED, BalancerState, servers
from roles.checks import Check, of_host
from roles.host import probe
from roles.validation.observations import Completion, Endpoint, completion_of
from roles.validation.settings import ValidationSettings
from roles.validation.verdicts import PROVED, judge_completion


@dataclass(frozen=True)
class EndpointObservations:
    """The endpoint's answers: a completion, a streamed one, one with a wrong key, and then many.

    Where it has another task, that takes the completion's place, and there is no stream."""

    completion: Completion
    stream: Completion | None
    wrong_key: Completion
    spread: tuple[Completion, ...]


def tls_context(ca_pem: str | None) -> ssl.SSLContext:
    """A TLS context that trusts only the given certificates, or the system's if none are given.

    Names are verified in both cases. Raises ssl.SSLError if `ca_pem` is no certificate.
    """
    context = ssl.create_default_context(cadata=ca_pem)
    if ca_pem:
        # A pinned certificate need not be a root.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def ask_endpoint(
    endpoint: Endpoint, key: str, ca_pem: str | None, settings: ValidationSettings
) -> EndpointObservations:
    """Send requests to the endpoint. Raises ssl.SSLError if `ca_pem` is no certificate."""
    context = tls_context(ca_pem)
    timeout_s = settings.completion_timeout_s

    def ask(key: str) -> Completion:
        prove = probe.PROOFS[endpoint.task]
        return completion_of(
            prove(endpoint.base_url, key, endpoint.model, timeout_s, context=context)
        )

    stream = None
    if endpoint.task == "generate":
        asked = (endpoint.base_url, key, endpoint.model, timeout_s)
        stream = completion_of(probe.chat_stream(*asked, context=context))
    completion = ask(key)
    spread: list[Completion] = []
    for _ in range(settings.balancer_rounds if completion.ok else 0):
        if not unseen_upstreams(endpoint.upstreams, spread):
            break
        spread += probe.in_parallel(lambda _: ask(key), endpoint.upstreams)
    return EndpointObservations(
        completion, stream, ask(f"sk-wrong-{secrets.token_hex(8)}"), tuple(spread)
    )


def replica_of(header: str | None) -> str | None:
    """The upstream that answered: the last one that the balancer tried."""
    tried = re.findall(r"[^\s,]+:\d+", header or "")
    return tried[-1] if tried else None


def unseen_upstreams(upstreams: Sequence[str], answers: Sequence[Completion]) -> list[str]:
    """The upstreams that have not answered yet."""
    seen = {replica_of(answer.replica) for answer in answers if answer.ok}
    return [upstream for upstream in upstreams if upstream not in seen]


def judge_endpoint(
    host: str,
    endpoint: Endpoint,
    seen: EndpointObservations,
    why_out: Mapping[str, str] | None = None,
) -> list[Check]:
    """All checks of a balancer; `why_out` says of upstreams why they get no requests, see
    `reasons_out`."""
    url = endpoint.base_url
    proved = PROVED[endpoint.task]
    checks = [judge_completion(proved, url, seen.completion, _lacks(seen.completion))]
    if seen.stream:
        checks.append(judge_completion("stream", url, seen.stream, _lacks(seen.stream)))
    checks.append(judge_wrong_key(url, seen.wrong_key))
    if seen.spread:
        checks.append(judge_spread(endpoint, seen.spread, why_out or {}))
    return of_host(host, checks)


def _lacks(answer: Completion) -> str:
    """What a balancer lacks that gave no completion."""
    if answer.status in (502, 503, 504):
        return "No replica behind it answers: repair the GPU hosts that failed, and run again."
    return "See the balancer's log, and that its port can be reached from here."


def judge_wrong_key(url: str, answer: Completion) -> Check:
    """Whether a wrong key is refused."""
    if answer.status == 401:
        return Check("wrong key", url, "pass", "refused with 401")
    evidence = "a wrong key was served" if answer.ok else f"not refused with 401: {answer.error}"
    return Check("wrong key", url, "fail", evidence, "Check that the balancer compares keys.")


def reasons_out(state: BalancerState | None, upstreams: Iterable[str]) -> dict[str, str]:
    """Of upstreams by their address and port: why a balancer sends them no requests."""
    if state is None:
        return {}
    found = [server for one in state.upstreams for server in servers(one, state.drains)]
    known = {server.member.endpoint: server.out for server in found}
    reasons = {
        upstream: known.get(upstream) if upstream in known else "not in the upstream"
        for upstream in upstreams
    }
    return {upstream: why for upstream, why in reasons.items() if why}


def judge_spread(
    endpoint: Endpoint, answers: Sequence[Completion], why_out: Mapping[str, str]
) -> Check:
    """Whether every replica answers through the balancer."""
    planned = len(endpoint.upstreams)
    failed = [answer.error for answer in answers if not answer.ok]
    if failed:
        evidence = f"{len(failed)} of {len(answers)} requests failed: {failed[0]}"
        return Check(
            "replicas",
            endpoint.base_url,
            "fail",
            evidence,
            "Compare the balancer's upstreams and log.",
        )
    if not any(answer.replica for answer in answers):
        evidence = f"{len(answers)} requests answered; the balancer does not say by which replica"
        return Check(
            "replicas", endpoint.base_url, "warn", evidence, "Let it send the header X-LLM-Replica."
        )
    unseen = unseen_upstreams(endpoint.upstreams, answers)
    evidence = f"{planned - len(unseen)} of {planned} answered in {len(answers)} requests"
    if unseen:
        remedy = "They may be drained or ejected: see the balancer's log."
        if why_out.keys() >= set(unseen):
            remedy = (
                "A deploy with deploys/llm.py of all hosts brings in again what is in the plan."
            )
            if DRAINED in why_out.values():
                remedy = f"deploys/status.py says who drained what. {remedy}"
        named = [f"{one} ({why_out[one]})" if one in why_out else one for one in unseen]
        return Check(
            "replicas",
            endpoint.base_url,
            "warn",
            f"{evidence}; not seen: {', '.join(named)}",
            remedy,
        )
    return Check("replicas", endpoint.base_url, "pass", evidence)
