"""One completion of each member, asked by the balancer: the program and what its answers mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from roles.balancer.routes import Member, Route
from roles.balancer.upstreams import one_line
from roles.host import PROBE, bundle

# A refused connection may be a restart: it is tried again for a while. A timeout has waited
# longer than this already and is not.
RETRY_S = 6

# Where engines refuse the planned key, a roll stopped before it reached them: they expect the one
# that the balancer has, and those that have moved take both.
PROGRAM = """
import re


def ask(target, key, model):
    give_up = time.monotonic() + TASK["retry_s"]
    while True:
        result = chat(target, key, model, TASK["timeout_s"])
        if result["ok"] and result["model"] != model:
            wrong = "it serves %s" % result["model"]
            return {"ok": False, "status": 200, "error": wrong}
        if result["ok"] or result["status"] == 401 or time.monotonic() > give_up:
            return result
        time.sleep(1)


def ask_all(service, key):
    targets = service["targets"]
    results = in_parallel(lambda url: ask(url, key, service["model"]), targets.values())
    return dict(zip(targets, results))


def present_key(paths):
    for path in paths:
        try:
            with open(path) as file:
                found = re.search('"Bearer ([^"]+)"', file.read())
        except OSError:
            continue
        return found and found.group(1)
    return None


def good(results):
    return sum(result["ok"] for result in results.values())


def ask_service(service):
    results = ask_all(service, service["key"])
    answer = {"service": service["service"], "keeps_key": False, "results": results}
    if any(result["status"] == 401 for result in results.values()):
        key = present_key(service["key_paths"])
        if key and key != service["key"]:
            before = ask_all(service, key)
            if good(before) >= max(good(results), 1):
                answer.update(keeps_key=True, results=before)
    return answer


print(json.dumps(in_parallel(ask_service, TASK["services"])))
"""


@dataclass(frozen=True)
class ServiceResults:
    """What the members of one service answered.

    `failed` says by id why one gave no token. `keeps_key`: they answer to the engine key that the
    balancer has, not to the planned one.
    """

    service: str
    asked: frozenset[str]
    failed: Mapping[str, str]
    keeps_key: bool = False

    @property
    def all_failed(self) -> bool:
        """Whether none answered as it must."""
        return self.asked == self.failed.keys()


@dataclass(frozen=True)
class ServiceProbe:
    """Whom to ask of one service, and where its engines' present key may lie on the balancer."""

    route: Route
    members: Sequence[Member]
    key_paths: Sequence[str]


def probe_script(questions: Sequence[ServiceProbe], timeout_s: int) -> str:
    """The Python program that asks all members at once; it holds keys and goes to stdin only.

    It prints one JSON list, see `parse_results`.
    """
    services = [
        {
            "service": question.route.service,
            "model": question.route.model,
            "key": question.route.engine_key,
            "key_paths": list(question.key_paths),
            "targets": {m.id: f"http://{m.endpoint}" for m in question.members},
        }
        for question in questions
    ]
    task = {"services": services, "timeout_s": timeout_s, "retry_s": RETRY_S}
    return bundle([PROBE], task, PROGRAM)


class _Good(BaseModel):
    model_config = ConfigDict(defer_build=True)

    ok: Literal[True]


class _Failed(BaseModel):
    model_config = ConfigDict(defer_build=True)

    ok: Literal[False]
    status: int | None
    error: str

    @property
    def reason(self) -> str:
        """Why a member failed, in words that stay the same while the failure does."""
        # The body of an error may carry a request id or a time: the file would change at every run.
        return one_line(self.error if self.status in (None, 200) else f"HTTP {self.status}")


class _Service(BaseModel):
    """What the program prints of one service."""

    model_config = ConfigDict(defer_build=True)

    service: str
    keeps_key: bool
    results: dict[str, _Good | _Failed]


def parse_results(text: str) -> tuple[ServiceResults, ...]:
    """What the program printed; ValueError for anything else: a host may print what it likes."""
    return tuple(
        ServiceResults(
            one.service,
            frozenset(one.results),
            {
                id: result.reason
                for id, result in one.results.items()
                if isinstance(result, _Failed)
            },
            one.keeps_key,
        )
        for one in TypeAdapter(list[_Service]).validate_json(text, strict=True)
    )
