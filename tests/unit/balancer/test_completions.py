"""What the answers of members mean."""

import json
from typing import Any

import pytest

from roles.balancer.completions import parse_results


def answers(*results: dict[str, Any]) -> Any:
    named = {f"gpu{number}/chat-0": result for number, result in enumerate(results)}
    (found,) = parse_results(
        json.dumps([{"service": "chat", "keeps_key": False, "results": named}])
    )
    return found


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"ok": False, "status": 500, "error": "HTTP 500: id 81f"}, "HTTP 500"),
        ({"ok": False, "status": None, "error": "timed out"}, "timed out"),
        ({"ok": False, "status": 200, "error": "it serves another"}, "it serves another"),
    ],
)
def test_reasons(result: dict[str, object], reason: str):
    assert answers(result).failed == {"gpu0/chat-0": reason}
    assert answers(result).all_failed
    assert not answers(result, {"ok": True, "status": 200}).all_failed
