"""One completion of each replica, asked by the balancer: the program and what its answers mean."""

from collections.abc import Iterable, Mapping
from typing import Any

from roles.balancer.upstream import Server, plain
from roles.host import PROBE, bundle

# A refused connection may be a restart: it is tried again for a while. A timeout has waited
# longer than this already and is not.
RETRY_S = 6

PROGRAM = """
def ask(target):
    name, url = target
    give_up = time.monotonic() + TASK["retry_s"]
    while True:
        result = chat(url, TASK["key"], TASK["model"], TASK["timeout_s"])
        if result["ok"] or time.monotonic() > give_up:
            return name, result
        time.sleep(1)

print(json.dumps(dict(in_parallel(ask, TASK["targets"].items()))))
"""


def script(servers: Iterable[Server], model: str, key: str, timeout_s: int) -> str:
    """The Python program that asks all servers at once; it holds the key and goes to stdin only.

    It prints one JSON object: `chat`'s result by server name.
    """
    targets = {server.name: f"http://{server.endpoint}" for server in servers}
    task = {"targets": targets, "model": model, "key": key, "timeout_s": timeout_s}
    return bundle([PROBE], task | {"retry_s": RETRY_S}, PROGRAM)


def failures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Why replicas failed, by id, in words that stay the same while the failure does."""
    return {name: _reason(result) for name, result in results.items() if not result["ok"]}


def _reason(result: Mapping[str, Any]) -> str:
    # The body of an error may carry a request id or a time: the file would change at every run.
    if result["status"] not in (None, 200):
        return f"HTTP {result['status']}"
    return plain(str(result["error"]))
