"""What a run collects, and which hosts it names at its end."""

import json
from pathlib import Path

import pytest

from roles.checks import Check, Report, of_host
from roles.checks.report import brief

GOOD, BAD = Check("sudo", "", "pass", "passwordless"), Check("sudo", "", "fail", "none")
HOST = "gpu1"


@pytest.mark.parametrize(
    ("checks", "why", "reason", "found"),
    [
        ([GOOD], "", "", [("sudo", "pass")]),
        # A check says already why it was stopped.
        ([BAD], "it stopped at “x”", "sudo", [("sudo", "fail")]),
        ([GOOD], "it stopped at “x”", "", [("sudo", "pass"), ("host", "fail")]),
        ([], "it could not be reached", "", [("host", "fail")]),
        ([], "", "", [("host", "fail")]),
        # Outside --limit.
        ([], None, "", []),
        ([GOOD], None, "", [("sudo", "pass")]),
    ],
)
def test_a_host_that_was_stopped_or_never_checked_is_failed(
    checks: list[Check], why: str | None, reason: str, found: list[tuple[str, str]]
):
    report = Report()
    report.plan([HOST])
    report.record(of_host(HOST, checks))
    if reason:
        report.stop(HOST, reason)
    complete = report.complete(lambda name: why)
    assert [(one.name, one.outcome) for one in complete] == found
    assert {(one.host, one.subject) for one in complete} <= {(HOST, HOST)}


def test_the_first_line_of_the_first_reason_is_the_evidence():
    report = Report()
    report.plan([HOST])
    report.stop(HOST, "the driver\x1b hangs\nand so on")
    report.stop(HOST, "another")
    (check,) = report.complete(lambda name: "it stopped at “Driver”")
    assert check.evidence == "it stopped at “Driver”: the driver  hangs"


def test_hosts_come_in_the_planned_order():
    report = Report()
    report.plan(["lb1", "gpu1"])
    report.record(of_host("gpu9", [GOOD]) + of_host("gpu1", [GOOD]))
    complete = report.complete(lambda name: "it could not be reached" if name == "lb1" else "")
    assert [(one.host, one.outcome) for one in complete] == [
        ("lb1", "fail"),
        ("gpu1", "pass"),
        ("gpu9", "pass"),
    ]


def test_the_end_prints_a_table_and_writes_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    report = Report(run="7", folder=tmp_path / "reports")
    report.record(of_host(HOST, [BAD]))
    report.finish(lambda name: "")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("\n--> Report:\nHOST ")
    assert json.loads((tmp_path / "reports/report.json").read_text())["run"] == "7"
    assert (tmp_path / "reports/report.xml").is_file()


def test_a_folder_that_cannot_be_written_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "reports").write_text("a file")
    Report(folder=tmp_path / "reports").finish(lambda name: "")
    assert "The reports could not be written" in capsys.readouterr().err


def test_a_host_that_an_interrupted_run_left_says_what_to_do():
    report = Report(at_work={"gpu1": "Launch | Move batch 1"})
    report.plan(["gpu1", "gpu2"])
    checks = report.complete(lambda name: "the run ended before its turn")
    assert [check.remedy.split()[0] for check in checks] == ["Wait", "Run"]


def test_what_the_screen_counts_is_shown_or_said_to_be_above():
    checks = [
        Check("persistence", "gpu1", "warn", "none", host="gpu1"),
        Check("replicas", "https://lb1", "warn", "1 of 2", host="lb1"),
        Check("host", "gpu2", "fail", "the run ended before its turn", host="gpu2"),
    ]
    *rows, last = brief(checks).splitlines()
    assert len(rows) == 2 and "https://lb1" in rows[1]
    assert last == (
        "3 checks: 0 passed, 2 warned, 1 failed; 1 of the warnings are above; "
        "failures are in the verdict below"
    )
