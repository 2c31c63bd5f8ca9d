"""What is printed of a host while the run goes on."""

from roles.checks import Check
from roles.preflight.deploy import abort_reason
from roles.preflight.report import lines

CHECKS = (
    Check("os", "", "pass", "debian 12"),
    Check("denials", "", "warn", "one\x1b[2J\ndenial", "look"),
    Check("sudo", "", "fail", "no passwordless sudo", "add a rule"),
    Check("proxies", "", "skipped", "none is set"),
)


def test_only_what_is_to_be_mended_is_shown():
    assert lines(CHECKS) == [
        "fail     sudo     no passwordless sudo",
        "                  → add a rule",
        "warn     denials  one [2J denial",
        "                  → look",
        "1 check passed, 1 warning, 1 to fix first, 1 skipped",
    ]
    assert lines(CHECKS[:1] * 23) == []


def test_everything_is_shown_on_request():
    assert lines(CHECKS, verbose=True)[-3:] == [
        "pass     os       debian 12",
        "skipped  proxies  none is set",
        "1 check passed, 1 warning, 1 to fix first, 1 skipped",
    ]


def test_why_a_host_must_not_go_on():
    assert abort_reason(CHECKS) == "preflight: sudo"
    assert abort_reason(CHECKS[:2]) is None
