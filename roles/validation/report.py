"""Verdicts as a table for people, and as JSON and JUnit for programs: pure, but for the files."""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

from roles.validation.verdicts import RANK, Verdict

HEADER = ("HOST", "SUBJECT", "CHECK", "OUTCOME", "EVIDENCE")
# All that XML 1.0 forbids; in a terminal the same characters could move the cursor.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]+")


def clean(text: str) -> str:
    """One line of text without control characters, as engines and drivers may print them."""
    return _CONTROL.sub(" ", text).strip()


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many checks passed, warned and failed."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    return (
        f"{len(verdicts)} checks: {counts['pass']} passed, "
        f"{counts['warn']} warned, {counts['fail']} failed"
    )


def table(verdicts: Sequence[Verdict]) -> str:
    """An aligned table, failures last, then what to do about them, then the summary."""
    ranked = sorted(verdicts, key=lambda verdict: RANK[verdict.outcome])
    rows = [HEADER] + [
        tuple(map(clean, (v.host, v.subject, v.check, v.outcome, v.evidence))) for v in ranked
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER) - 1)]
    lines = [
        "  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row[-1]])
        for row in rows
    ]
    remedies = [
        clean(f"{verdict.host} {verdict.subject} {verdict.check}: {verdict.remedy}")
        for verdict in ranked
        if verdict.remedy and verdict.outcome == "fail"
    ]
    notes = ["", "What to do:", *(f"  {remedy}" for remedy in remedies)] if remedies else []
    return "\n".join([*lines, *notes, "", summary(verdicts)])


def to_json(verdicts: Sequence[Verdict]) -> str:
    """{"summary": {…}, "verdicts": [{host, subject, check, outcome, evidence, remedy}]}."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    data = {
        "summary": {outcome: counts[outcome] for outcome in RANK},
        "verdicts": [asdict(verdict) for verdict in verdicts],
    }
    return json.dumps(data, indent=2) + "\n"


def to_junit(verdicts: Sequence[Verdict]) -> str:
    """JUnit XML: a suite for each host, a case for each check; a warning passes with its text."""
    suites = ElementTree.Element("testsuites", _counts(verdicts))
    for host in dict.fromkeys(verdict.host for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.host == host]
        suite = ElementTree.SubElement(suites, "testsuite", {"name": clean(host), **_counts(own)})
        for verdict in own:
            _case(suite, verdict)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _counts(verdicts: Sequence[Verdict]) -> dict[str, str]:
    failures = sum(verdict.outcome == "fail" for verdict in verdicts)
    return {"tests": str(len(verdicts)), "failures": str(failures), "errors": "0"}


def _case(suite: ElementTree.Element, verdict: Verdict) -> None:
    name = clean(f"{verdict.subject} {verdict.check}")
    classname = clean(verdict.host)
    case = ElementTree.SubElement(suite, "testcase", {"name": name, "classname": classname})
    evidence = clean(verdict.evidence)
    if verdict.outcome == "fail":
        failure = ElementTree.SubElement(case, "failure", {"message": evidence})
        failure.text = clean(verdict.remedy)
    else:
        output = ElementTree.SubElement(case, "system-out")
        output.text = f"warning: {evidence}" if verdict.outcome == "warn" else evidence


def write_reports(folder: Path, name: str, verdicts: Sequence[Verdict]) -> list[Path]:
    """Write NAME.json and NAME.xml, each by a rename; the paths. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, text in (("json", to_json(verdicts)), ("xml", to_junit(verdicts))):
        path = folder / f"{name}.{suffix}"
        # Two runs at once must not write into one file.
        partial = folder / f".{name}.{suffix}.{os.getpid()}"
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
        paths.append(path)
    return paths
