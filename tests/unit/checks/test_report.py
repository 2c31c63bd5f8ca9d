"""The table, the JSON and the JUnit file."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from roles.checks import Check, table, to_json, to_junit, worst, write_reports
from roles.checks.check import OUTCOMES
from roles.checks.report import SCHEMA

DESCRIPTION = json.loads(
    (Path(__file__).parents[3] / "docs/report.schema.json").read_text(encoding="utf-8")
)
# The fields of each version: a version that was published once is never changed.
FIELDS = {
    1: {
        "": {"schema", "run", "summary", "checks"},
        "summary": {"skipped", "pass", "warn", "fail"},
        "checks": {"name", "subject", "outcome", "evidence", "remedy", "host"},
    }
}
CHECKS = [
    Check("load", "chat-1", "fail", "HTTP 500", "See the log.", host="gpu2"),
    Check("completion", "chat-0", "pass", "1 token in 0.2 s", host="gpu1"),
    Check("utilization", "chat-0", "warn", "GPU 1: 50%", "It waits.", host="gpu1"),
    Check("interconnect", "GPUs 0,1", "skipped", "not measured", host="gpu1"),
]
ANY_TEXT = st.text(st.characters(), max_size=30)
ANY_CHECK = st.builds(
    Check, ANY_TEXT, ANY_TEXT, st.sampled_from(OUTCOMES), ANY_TEXT, ANY_TEXT, ANY_TEXT
)


def violations(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """Where a value is not as a JSON Schema of the kind that docs/ has says."""
    if "const" in schema or "enum" in schema:
        return [] if value in schema.get("enum", [schema.get("const")]) else [path]
    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "boolean": bool,
        "number": int | float,
        "null": type(None),
    }
    names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(isinstance(value, types[name]) for name in names):
        return [path]
    if isinstance(value, list):
        return [
            found
            for number, item in enumerate(value)
            for found in violations(item, schema["items"], f"{path}/{number}")
        ]
    if not isinstance(value, dict):
        return []
    fields = schema["properties"]
    wrong = set(schema["required"]) - set(value) | set(value) - set(fields)
    return [f"{path}/{name}" for name in sorted(wrong)] + [
        found
        for name in value.keys() & fields.keys()
        for found in violations(value[name], fields[name], f"{path}/{name}")
    ]


def test_the_table_is_aligned_with_failures_last() -> None:
    assert table(CHECKS).splitlines() == [
        "HOST  SUBJECT   CHECK         OUTCOME  EVIDENCE",
        "gpu1  GPUs 0,1  interconnect  skipped  not measured",
        "gpu1  chat-0    completion    pass     1 token in 0.2 s",
        "gpu1  chat-0    utilization   warn     GPU 1: 50%",
        "gpu2  chat-1    load          fail     HTTP 500",
        "",
        "What to do:",
        "  gpu2 chat-1 load: See the log.",
        "",
        "4 checks: 1 passed, 1 warned, 1 failed, 1 skipped",
    ]


def test_of_hosts_themselves_only_what_is_not_well_has_a_row() -> None:
    well = [
        Check(name, "gpu1", outcome, "seen", host="gpu1")
        for name, outcome in zip("abc", ("pass", "pass", "skipped"), strict=True)
    ]
    bad = [Check("sudo", "gpu1", "fail", "no sudo", host="gpu1")]
    lines = table([*well, *bad]).splitlines()
    assert [line.split()[2] for line in lines[1:2]] == ["sudo"]
    assert lines[-3:] == [
        "Of the hosts themselves: 2 passed, 1 skipped",
        "",
        "4 checks: 2 passed, 0 warned, 1 failed, 1 skipped",
    ]


def test_junit_has_a_suite_for_each_host_and_a_case_for_each_check() -> None:
    root = ElementTree.fromstring(to_junit(CHECKS))
    assert root.attrib == {"tests": "4", "failures": "1", "errors": "0", "skipped": "1"}
    assert [suite.attrib["name"] for suite in root] == ["gpu2", "gpu1"]
    failed = root[0][0]
    assert failed.attrib == {"name": "chat-1 load", "classname": "gpu2"}
    assert failed[0].tag == "failure"
    assert (failed[0].attrib["message"], failed[0].text) == ("HTTP 500", "See the log.")
    assert root[1][1][0].text == "warning: GPU 1: 50%"
    assert (root[1][2][0].tag, root[1][2][0].attrib) == ("skipped", {"message": "not measured"})


def test_json_is_as_it_is_described() -> None:
    data = json.loads(to_json(CHECKS, run="20260101-1"))
    assert violations(data, DESCRIPTION) == []
    assert data["run"] == "20260101-1"
    assert data["summary"] == {"skipped": 1, "pass": 1, "warn": 1, "fail": 1}
    assert data["checks"][0] == vars(CHECKS[0])


def test_what_is_not_as_described_is_found() -> None:
    data = json.loads(to_json(CHECKS))
    data["checks"][1] |= {"outcome": "ok", "colour": "red"}
    del data["checks"][2]["host"]
    data["summary"]["pass"] = "1"
    assert sorted(violations(data | {"schema": 0}, DESCRIPTION)) == [
        "/checks/1/colour",
        "/checks/1/outcome",
        "/checks/2/host",
        "/schema",
        "/summary/pass",
    ]


def test_other_fields_are_another_version() -> None:
    described = DESCRIPTION["properties"]
    data = json.loads(to_json(CHECKS))
    assert data["schema"] == SCHEMA == described["schema"]["const"] == max(FIELDS)
    assert FIELDS[SCHEMA] == {
        "": set(data),
        "summary": set(data["summary"]),
        "checks": set(data["checks"][0]),
    }


@given(st.lists(ANY_CHECK, max_size=5))
def test_any_text_gives_a_table_json_and_valid_xml(checks: list[Check]) -> None:
    root = ElementTree.fromstring(to_junit(checks).encode())
    assert len(root.findall("testsuite/testcase")) == len(checks)
    data = json.loads(to_json(checks))
    assert data["checks"] == [vars(check) for check in checks]
    assert violations(data, DESCRIPTION) == []
    shown = [one for one in checks if one.subject != one.host or one.outcome in ("warn", "fail")]
    lines = table(checks).splitlines()
    assert len(lines) >= len(shown) + 3
    assert "\x1b" not in table(checks)


@given(st.lists(st.sampled_from(OUTCOMES)))
def test_the_worst_outcome_is_one_of_them_and_none_is_worse(outcomes: list[Any]) -> None:
    found = worst(outcomes)
    assert found in (outcomes or ["skipped"])
    assert all(worst([found, one]) == found for one in outcomes)
    assert worst(["pass", "warn", "skipped"]) == "warn"


def test_files_are_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    write_reports(folder, "report", CHECKS)
    paths = write_reports(folder, "report", CHECKS[:1])
    assert sorted(folder.iterdir()) == sorted(paths)
    assert [path.name for path in paths] == ["report.json", "report.xml"]
    assert len(json.loads(paths[0].read_text())["checks"]) == 1
