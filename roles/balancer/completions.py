"""The program by which a balancer asks each member for a completion, and its results. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from roles.balancer.routes import Member, Route
from roles.balancer.upstreams import one_line
from roles.host import PROBE, bundle

# For how many seconds a failed request is repeated: a replica that restarts refuses connections for
# a moment. A request that timed out has taken longer and is not repeated.
RETRY_S = 6

# Engines refuse the planned key where a rolling update stopped before it reached them. They expect
# the balancer's present key, and engines that have moved accept both.
PROGRAM = """
import re


def ask(target, key, model, task):
    give_up = time.monotonic() + TASK["retry_s"]
    while True:
        result = PROOFS[task](target, key, model, TASK["timeout_s"])
        if result["ok"] and result["model"] != model:
            wrong = "it serves %s" % result["model"]
            return {"ok": False, "status": 200, "error": wrong}
        if result["ok"] or result["status"] == 401 or time.monotonic() > give_up:
            return result
        time.sleep(1)


def ask_all(service, key):
    targets, asked = service["targets"], (key, service["model"], service["task"])
    results = in_parallel(lambda url: ask(url, *asked), targets.values())
    return dict(zip(targets, results))


def present_key(paths):
    for path in paths:
        try:
            with open(path) as file:
                found = re.search("Bearer ([A-Za-z0-9._~+/-]+=*)", file.read())
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
    """The results of the members of one service.

    `asked` are the ids of all members that were asked, `failed` says by id why one gave no token.
    `keeps_key` says that they accept the key that the balancer has, and not the planned one.
    """

    service: str
    asked: frozenset[str]
    failed: Mapping[str, str]
    keeps_key: bool = False

    @property
    def all_failed(self) -> bool:
        """Whether every member failed."""
        return self.asked == self.failed.keys()


@dataclass(frozen=True)
class ServiceProbe:
    """The members of one service to ask, and the files on the balancer that may hold the engines'
    present key."""

    route: Route
    members: Sequence[Member]
    key_paths: Sequence[str]


def probe_script(questions: Sequence[ServiceProbe], timeout_s: int) -> str:
    """The Python program that asks all members at once and prints JSON for `parse_results`.

    It holds keys, so it must go to the standard input only.
    """
    services = [
        {
            "service": question.route.service,
            "model": question.route.model,
            "task": question.route.task,
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
        """Why a member failed, in words that do not change between runs."""
        # The body of an error may hold a request id or a time: the file would change at every run.
        return one_line(self.error if self.status in (None, 200) else f"HTTP {self.status}")


class _Service(BaseModel):
    """What the program prints for one service."""

    model_config = ConfigDict(defer_build=True)

    service: str
    keeps_key: bool
    results: dict[str, _Good | _Failed]


def parse_results(text: str) -> tuple[ServiceResults, ...]:
    """The results that the program printed; ValueError for any other text."""
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
