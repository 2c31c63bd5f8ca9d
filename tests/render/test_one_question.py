"""All that a run asks a host, in one question, on this machine with some programs of its own."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from roles.driver import PART as DRIVER
from roles.driver import parse_state as parse_driver
from roles.hardware import PART as HARDWARE
from roles.hardware import parse_report
from roles.host import SUDO, Sections
from roles.host.question import parse_answers, question
from roles.preflight.answers import parse_preflight as parse_preflight
from roles.preflight.questions import ROOT, USER, Questions, parts_of
from roles.tuning import PART as TUNING
from roles.tuning import parse_state as parse_tuning

# As long as a real one has, a test would last.
IMPATIENT = replace(HARDWARE, script=HARDWARE.script.replace("limit 30 ", "limit 1 "))
PARTS = (IMPATIENT, DRIVER, TUNING, *parts_of(Questions()))
PROGRAMS = {
    "sudo": 'shift; exec "$@"',
    "id": "echo 1000",
    "nvidia-smi": "exec sleep 100",
    "curl": "exit 7",
    "apt-get": "exit 0",
    "journalctl": "exit 0",
}


def ask(folder: Path, **programs: str) -> dict[str, dict[str, str]]:
    """The answers of an ordinary user's host; its nvidia-smi hangs, unless `programs` differ."""
    for name, text in (PROGRAMS | programs).items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", question(PARTS)],
        env=dict(os.environ, PATH=f"{folder}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return parse_answers(done.stdout.splitlines())


def sections(answers: dict[str, dict[str, str]], name: str) -> Sections:
    return answers.get(name, {})


def test_a_host_answers_all_roles_at_once_although_its_driver_hangs(tmp_path: Path):
    answers = ask(tmp_path)
    assert set(answers) == {HARDWARE.name, DRIVER.name, TUNING.name, USER, ROOT, SUDO}
    report = parse_report(sections(answers, HARDWARE.name))
    assert "driver-hangs" in [fault.kind for fault in report.faults]
    assert report.passwordless_sudo and not report.root
    state = parse_driver(sections(answers, DRIVER.name), report)
    assert (state.kernel, state.answers) == (report.system.kernel, None)
    assert parse_tuning(sections(answers, TUNING.name), report).ram_mib == report.system.ram_mib
    assert parse_preflight(answers).root


def test_without_sudo_only_what_needs_root_is_missing(tmp_path: Path):
    printed = "sudo: a password is required"
    answers = ask(tmp_path, **{"sudo": f"echo {printed} >&2; exit 1", "nvidia-smi": "exit 9"})
    assert set(answers) == {HARDWARE.name, USER, SUDO}
    report = parse_report(sections(answers, HARDWARE.name))
    assert not report.passwordless_sudo
    found = parse_preflight(answers)
    assert (found.root, found.sudo_message) == (False, printed)
    for parse, name in ((parse_driver, DRIVER.name), (parse_tuning, TUNING.name)):
        with pytest.raises(ValueError, match="no answer"):
            parse(sections(answers, name), report)


def test_the_question_fits_into_one_argument():
    """Linux takes no longer one than 128 KiB; pyinfra quotes it once, and the login's shell has it
    as one of its own."""
    assert len(question(PARTS).replace("'", "'\"'\"'")) < 64 * 1024
