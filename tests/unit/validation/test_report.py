"""The table, the JSON and the JUnit file."""

import json
from pathlib import Path
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from roles.validation import Verdict, table, to_json, to_junit
from roles.validation.report import write_reports

VERDICTS = [
    Verdict("gpu2", "chat-1", "load", "fail", "HTTP 500", "See the log."),
    Verdict("gpu1", "chat-0", "completion", "pass", "1 token in 0.2 s"),
    Verdict("gpu1", "chat-0", "utilization", "warn", "GPU 1: 50%", "It waits."),
]
ANY_TEXT = st.text(st.characters(), max_size=30)
ANY_VERDICT = st.builds(
    Verdict,
    ANY_TEXT,
    ANY_TEXT,
    ANY_TEXT,
    st.sampled_from(["pass", "warn", "fail"]),
    ANY_TEXT,
    ANY_TEXT,
)


def test_the_table_is_aligned_with_failures_last() -> None:
    assert table(VERDICTS).splitlines() == [
        "HOST  SUBJECT  CHECK        OUTCOME  EVIDENCE",
        "gpu1  chat-0   completion   pass     1 token in 0.2 s",
        "gpu1  chat-0   utilization  warn     GPU 1: 50%",
        "gpu2  chat-1   load         fail     HTTP 500",
        "",
        "What to do:",
        "  gpu2 chat-1 load: See the log.",
        "",
        "3 checks: 1 passed, 1 warned, 1 failed",
    ]


def test_junit_has_a_suite_for_each_host_and_a_case_for_each_check() -> None:
    root = ElementTree.fromstring(to_junit(VERDICTS))
    assert root.attrib == {"tests": "3", "failures": "1", "errors": "0"}
    assert [suite.attrib["name"] for suite in root] == ["gpu2", "gpu1"]
    failed = root[0][0]
    assert failed.attrib == {"name": "chat-1 load", "classname": "gpu2"}
    assert failed[0].tag == "failure"
    assert (failed[0].attrib["message"], failed[0].text) == ("HTTP 500", "See the log.")
    assert root[1][1][0].text == "warning: GPU 1: 50%"


def test_json_holds_every_field() -> None:
    data = json.loads(to_json(VERDICTS))
    assert data["summary"] == {"pass": 1, "warn": 1, "fail": 1}
    assert data["verdicts"][0]["remedy"] == "See the log."


@given(st.lists(ANY_VERDICT, max_size=5))
def test_any_text_gives_a_table_json_and_valid_xml(verdicts: list[Verdict]) -> None:
    root = ElementTree.fromstring(to_junit(verdicts).encode())
    assert len(root.findall("testsuite/testcase")) == len(verdicts)
    assert json.loads(to_json(verdicts))["verdicts"] == [vars(verdict) for verdict in verdicts]
    lines = table(verdicts).splitlines()
    assert len(lines) >= len(verdicts) + 3
    assert "\x1b" not in table(verdicts)


def test_files_are_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    write_reports(folder, "validation", VERDICTS)
    paths = write_reports(folder, "validation", VERDICTS[:1])
    assert sorted(folder.iterdir()) == sorted(paths)
    assert [path.name for path in paths] == ["validation.json", "validation.xml"]
    assert len(json.loads(paths[0].read_text())["verdicts"]) == 1
