import json

from roles.preflight.case import Check
from roles.preflight.deploy import stopped_by
from roles.preflight.report import lines, to_json

CHECKS = (
    Check("os", "ok", "debian 12"),
    Check("denials", "warning", "one\x1b[2J\ndenial", "look"),
    Check("sudo", "stop", "no passwordless sudo", "add a rule"),
    Check("proxies", "skipped", "none is set"),
)


def test_only_what_is_to_be_mended_is_shown():
    assert lines(CHECKS) == [
        "stop     sudo     no passwordless sudo",
        "                  → add a rule",
        "warning  denials  one [2J denial",
        "                  → look",
        "1 check passed, 1 warning, 1 to mend first, 1 skipped",
    ]
    assert lines(CHECKS[:1] * 23) == ["23 checks passed"]


def test_everything_is_shown_on_request():
    assert lines(CHECKS, verbose=True)[-3:] == [
        "ok       os       debian 12",
        "skipped  proxies  none is set",
        "1 check passed, 1 warning, 1 to mend first, 1 skipped",
    ]


def test_programs_get_everything():
    data = json.loads(to_json({"b": CHECKS, "a": CHECKS[:2]}))
    assert list(data["hosts"]) == ["a", "b"]
    assert [host["may_go_on"] for host in data["hosts"].values()] == [True, False]
    assert data["hosts"]["b"]["checks"][2] == {
        "name": "sudo",
        "severity": "stop",
        "seen": "no passwordless sudo",
        "remedy": "add a rule",
    }


def test_why_a_host_must_not_go_on():
    assert stopped_by(CHECKS) == "preflight: sudo"
    assert stopped_by(CHECKS[:2]) is None
