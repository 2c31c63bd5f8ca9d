"""Checks as a table for people, and as JSON and JUnit for programs. Pure, except that it writes
files."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

from roles.checks.check import OUTCOMES, Check, Outcome, failed, grouped, rank
from roles.checks.files import replace_file

# Version of the JSON that docs/report.schema.json describes. Any change of its fields raises it.
SCHEMA = 1
MAX_CELL_LENGTH = 2000
HEADER = ("HOST", "SUBJECT", "CHECK", "OUTCOME", "EVIDENCE")
_WORDS: tuple[tuple[Outcome, str], ...] = (
    ("pass", "passed"),
    ("warn", "warned"),
    ("fail", "failed"),
    ("skipped", "skipped"),
)


def printable(text: str) -> str:
    """The text with one blank in place of each run of unprintable characters.

    These are control characters, marks of writing direction, line ends and lone surrogates. XML
    forbids most of them, and a terminal would act on them.
    """
    if text.isprintable():
        return text
    return re.sub("\0+", " ", "".join(c if c.isprintable() else "\0" for c in text))


def clean(text: str) -> str:
    """The text as one line of printable characters: a host may print anything."""
    return printable(text).strip()


def summary(checks: Sequence[Check]) -> str:
    """The number of checks by outcome; skipped ones are named only if there are any."""
    return f"{len(checks)} checks: {_counted(checks, always=('pass', 'warn', 'fail'))}"


def _counted(checks: Sequence[Check], always: Sequence[Outcome] = ()) -> str:
    counts = Counter(check.outcome for check in checks)
    return ", ".join(
        f"{counts[outcome]} {word}"
        for outcome, word in _WORDS
        if outcome in always or counts[outcome]
    )


def table(checks: Sequence[Check]) -> str:
    """An aligned table with failures last, then their remedies, then the summary.

    Checks of a host itself that passed or were skipped get no row: they are counted.
    """
    ranked = sorted(checks, key=lambda check: rank(check.outcome))
    shown = [check for check in ranked if not _is_quiet(check)]
    quiet = [check for check in ranked if _is_quiet(check)]
    remedies = [
        "  " + _cell(f"{check.host} {check.subject} {check.name}: {check.remedy}")
        for check in ranked
        if check.remedy and check.outcome == "fail"
    ]
    parts = [
        "\n".join(_rows(shown)),
        "\n".join(["What to do:", *remedies]) if remedies else "",
        f"Of the hosts themselves: {_counted(quiet)}" if quiet else "",
        summary(checks),
    ]
    return "\n\n".join(part for part in parts if part)


def brief(checks: Sequence[Check]) -> str:
    """What a run has not shown yet: warnings about replicas, GPUs and endpoints, and the
    summary."""
    warned = [one for one in checks if one.outcome == "warn"]
    shown = [one for one in warned if one.subject != one.host]
    above = len(warned) - len(shown)
    notes = [f"{above} of the warnings are above" if above else ""]
    notes += ["failures are in the verdict below" if failed(checks) else ""]
    last = "; ".join([summary(checks), *filter(None, notes)])
    return "\n".join([*(_rows(shown) if shown else ()), last])


def _is_quiet(check: Check) -> bool:
    return check.subject == check.host and check.outcome in ("pass", "skipped")


def _rows(checks: Sequence[Check]) -> list[str]:
    rows = [HEADER] + [
        tuple(map(_cell, (one.host, one.subject, one.name, one.outcome, one.evidence)))
        for one in checks
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER) - 1)]
    return [
        "  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row[-1]])
        for row in rows
    ]


def _cell(text: str) -> str:
    # A host decides how long its evidence is; the JSON has all of it.
    return clean(text if len(text) <= MAX_CELL_LENGTH else f"{text[:MAX_CELL_LENGTH]} …")


def to_json(checks: Sequence[Check], run: str | None = None) -> str:
    """The report for programs, as docs/report.schema.json describes it; `run` is the run's id."""
    counts = Counter(check.outcome for check in checks)
    data = {
        "schema": SCHEMA,
        "run": run,
        "summary": {outcome: counts[outcome] for outcome in OUTCOMES},
        "checks": [asdict(check) for check in checks],
    }
    return json.dumps(data, indent=2) + "\n"


def to_junit(checks: Sequence[Check]) -> str:
    """JUnit XML: a suite for each host, a case for each check; a warning passes with its text."""
    suites = ElementTree.Element("testsuites", _counts(checks))
    for host, own in grouped(checks).items():
        suite = ElementTree.SubElement(suites, "testsuite", {"name": clean(host), **_counts(own)})
        for check in own:
            _case(suite, check)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _counts(checks: Sequence[Check]) -> dict[str, str]:
    counts = Counter(check.outcome for check in checks)
    return {
        "tests": str(len(checks)),
        "failures": str(counts["fail"]),
        "errors": "0",
        "skipped": str(counts["skipped"]),
    }


def _case(suite: ElementTree.Element, check: Check) -> None:
    name = clean(f"{check.subject} {check.name}")
    classname = clean(check.host)
    case = ElementTree.SubElement(suite, "testcase", {"name": name, "classname": classname})
    evidence = clean(check.evidence)
    if check.outcome == "fail":
        failure = ElementTree.SubElement(case, "failure", {"message": evidence})
        failure.text = clean(check.remedy)
    elif check.outcome == "skipped":
        ElementTree.SubElement(case, "skipped", {"message": evidence})
    else:
        output = ElementTree.SubElement(case, "system-out")
        output.text = f"warning: {evidence}" if check.outcome == "warn" else evidence


def write_reports(
    folder: Path, name: str, checks: Sequence[Check], run: str | None = None
) -> list[Path]:
    """Write NAME.json and NAME.xml, each by a rename, and return their paths. Raises OSError."""
    paths = []
    for suffix, text in (("json", to_json(checks, run)), ("xml", to_junit(checks))):
        path = folder / f"{name}.{suffix}"
        replace_file(path, text)
        paths.append(path)
    return paths
