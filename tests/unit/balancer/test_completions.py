"""What is told of a replica that fails."""

import pytest

from roles.balancer.completions import failures


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"ok": False, "status": 500, "error": "HTTP 500: id 81f"}, "HTTP 500"),
        ({"ok": False, "status": None, "error": "timed out"}, "timed out"),
        ({"ok": False, "status": 200, "error": "the completion has no token"}, None),
    ],
)
def test_reasons(result: dict[str, object], reason: str | None):
    assert failures({"gpu1/r0": result}) == {"gpu1/r0": reason or result["error"]}
    assert failures({"gpu1/r0": {"ok": True, "status": 200}}) == {}
