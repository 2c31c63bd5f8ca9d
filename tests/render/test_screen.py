"""What pyinfra's own program prints of a run of ours, line by line, and what is left to the log.

The hosts are not there: see `simulated_run`.
"""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).parents[2]
MOST_UNCHANGED, MOST_WITH_TWO_FAULTS = 40, 60
KEY = "sk-" + "k" * 32
INVENTORY = """
from roles.fleet.inventory import check

gpu_hosts = [
    (f"gpu{n}", {"ssh_hostname": f"10.0.0.{n}", "llm": {"gpus": "2x NVIDIA L40S"}})
    for n in (1, 2, 3)
]
balancers = [("lb1", {"ssh_hostname": "10.0.0.4", "ssh_user": "deploy"})]
all = (
    gpu_hosts + balancers,
    {
        "llm": {
            "services": [
                {"name": "chat", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
            ],
            "balancer": {"api_key_file": "api.key"},
            "driver": {"install": "never"},
        }
    },
)
check(__file__)
"""


@dataclass(frozen=True)
class Printed:
    """A run that is over."""

    status: int
    stdout: str
    stderr: str
    folder: Path

    @property
    def lines(self) -> list[str]:
        return (self.stdout + self.stderr).splitlines()

    @property
    def log(self) -> str:
        """The log that the last line names."""
        return (self.folder / self.lines[-1].removeprefix("The whole log: ")).read_text()

    @property
    def verdict(self) -> dict[str, tuple[str, str, str]]:
        """Replicas ("" where none were looked at), outcome and next step by host, from the table at
        the very end."""
        start = max(n for n, line in enumerate(self.lines) if re.match("HOST .*OUTCOME", line))
        header, *rows = self.lines[start : self.lines.index("", start)]
        names = [name for name in ("REPLICAS", "OUTCOME", "NEXT STEP") if name in header]
        columns = [header.index(name) for name in names]
        return {
            row.split()[0]: (
                *[""] * (3 - len(columns)),
                *(
                    row[begin:end].strip()
                    for begin, end in zip(columns, [*columns[1:], None], strict=True)
                ),
            )
            for row in rows
        }  # type: ignore[return-value]


class Site:
    """A project of its own with our config.py and an inventory of four hosts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "config.py").write_text((ROOT / "config.py").read_text())
        (folder / "site.py").write_text(INVENTORY)
        (folder / "api.key").write_text(KEY)
        (folder / "api.key").chmod(0o600)

    deploy = str(ROOT / "deploys/llm.py")

    def start(self, scenario: dict[str, Any], flags: Sequence[str]) -> subprocess.Popen[str]:
        file = self.folder / "scenario.json"
        file.write_text(json.dumps(scenario))
        program = ("tests.render.simulated_run", str(file))
        return self.python(*program, "site.py", self.deploy, "-y", *flags)

    def python(self, *module: str) -> subprocess.Popen[str]:
        """A module of Python's, with its arguments, in this project."""
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *flags: str, **scenario: Any) -> Printed:
        process = self.start(scenario, flags)
        stdout, stderr = process.communicate(timeout=300)
        return Printed(process.returncode, stdout, stderr, self.folder)


def read_until(stream: IO[str], start: str) -> str:
    """What a program prints up to the line that starts so."""
    text = ""
    while line := stream.readline():
        text += line
        if line.startswith(start):
            return text
    raise AssertionError(text)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_run_without_a_change_is_short_and_its_log_is_whole(site: Site):
    done = site.run()
    assert done.status == 0, done.stderr
    assert done.stdout == "" and len(done.lines) <= MOST_UNCHANGED
    assert done.lines[-2] == "Nothing changed. 6 of 6 replicas serve."
    assert done.verdict == {
        **dict.fromkeys(("gpu1", "gpu2", "gpu3"), ("2 / 2", "unchanged", "")),
        "lb1": ("-", "unchanged", ""),
    }
    assert "The plan is unchanged: 6 replicas on 3 hosts." in done.lines
    assert not re.search("No changes|Success|Starting operation|Grand total", done.stderr)
    # What is not on the screen is in the log, and so is what is.
    assert re.search(r"Grand total +\d+ +- +- +\d+", done.log)
    assert "Starting operation: Launch | Replicas serve" in done.log
    assert "Plan for chat" in done.log and done.lines[-2] in done.log
    assert KEY not in done.log + done.stderr
    (log,) = (site.folder / "reports").glob("*.log")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_host_at_work_for_another_deploy_is_known_before_anything_changes(site: Site):
    done = site.run(busy=["gpu1"], old={"gpu1": {}, "gpu2": {}})
    assert done.status == 1
    assert "pid 412, for 345 s, run 20261130T032409Z-4f2a" in done.stderr
    assert "wait for it, then run again" in done.stderr
    # What gpu1 serves is not known, so nothing of that service is stopped on gpu2.
    assert {"gpu1", "gpu2"} <= {host for host, one in done.verdict.items() if one[1] != "unchanged"}
    assert "Move batch 1" not in done.stderr


def test_two_faults_are_told_once_each_with_what_to_do(site: Site):
    older = {"shape": "TP2", "max_model_len": 8192}
    done = site.run(
        old={"gpu1": {}, "gpu3": older}, failing={"gpu1": ["no answer"]}, unreachable=["gpu2"]
    )
    assert done.status == 1
    assert len(done.lines) <= MOST_WITH_TWO_FAULTS
    assert [line.strip() for line in done.lines].count("[gpu1] no answer") == 1
    assert sum("Could not connect" in line for line in done.lines) == 1
    assert not re.search("executed 0 commands|No changes|Grand total", done.stderr)
    verdict = done.verdict
    assert [row[1] for row in verdict.values()] == [
        "FAILED", "not reached", "not updated", "changed",
    ]  # fmt: skip
    assert "journalctl" in verdict["gpu1"][2] and "ssh 10.0.0.2" in verdict["gpu2"][2]
    assert "gpu1" in verdict["gpu3"][2] and verdict["lb1"][2] == ""
    assert done.lines[-2].startswith("FAILED: gpu1. FAILED, not reached: gpu2. Changed: lb1.")
    assert "  gpu3/chat-0, gpu3/chat-1: TP2 → one GPU; max_model_len 8192 → 4096" in done.lines


HOSTS = ("gpu1", "gpu2", "gpu3")
LOG = [
    "chat-0 does not serve: its unit failed",
    *[f"    line {number}" for number in range(20)],
    "  more: sudo journalctl",
    "Nothing served here before. Repair it and run again.",
]


def test_hosts_that_fail_alike_are_not_told_at_length(site: Site):
    done = site.run(fresh=["gpu1", "gpu2"], failing={"gpu1": LOG, "gpu2": LOG})
    assert done.status == 1
    assert len(done.lines) <= MOST_WITH_TWO_FAULTS
    lines = [line.strip() for line in done.lines]
    output = [[one for one in LOG if f"[{host}] {one}".strip() in lines] for host in HOSTS[:2]]
    assert sorted(map(len, output)) == [3, len(LOG)]
    for host in HOSTS[:2]:
        assert f"[{host}] {LOG[-1]}" in done.log
        assert done.verdict[host][:2] == ("0 / 2", "FAILED")


def test_a_change_is_one_line_a_step(site: Site):
    done = site.run("--limit", "gpu1", "--limit", "lb1", old={"gpu1": {}})
    assert done.status == 0, done.stderr
    steps = [line.strip() for line in done.lines if line.startswith("    changed ")]
    assert steps == ["changed lb1: Drain batch 1", "changed gpu1: Launch | Move batch 1"]
    assert [row[1] for row in done.verdict.values()] == [
        "changed", "left out by --limit", "left out by --limit", "changed",
    ]  # fmt: skip


def test_what_takes_long_is_said_with_its_replicas(site: Site):
    done = site.run(old={"gpu1": {}}, slow_s={"gpu1": 7})
    assert done.status == 0, done.stderr
    output = [line for line in done.lines if line.startswith("... ")]
    assert output == ["... Launch | Move batch 1: gpu1 (chat-0, chat-1) 5 s"]


SLOW = """
import sys
from pyinfra import host
from pyinfra.api import operation
from roles.host.outcome import hearing_phases
from roles.launch.facts import NotServing
from roles.launch.operations import _Transaction

PROGRAM = '''
import time
print("@@progress chat-0 load", flush=True)
time.sleep(7)
'''

@operation()
def slow():
    if not host.state.is_executing:
        return
    if host.data.get("by_fact"):
        with hearing_phases(host):
            assert host.get_fact(NotServing, _stdin=PROGRAM) == ""
    else:
        yield _Transaction(PROGRAM)

slow(name="Launch | Slow")
"""


@pytest.mark.parametrize("data", [(), ("--data", "by_fact=true")])
def test_what_a_replica_is_at_is_said_while_its_command_runs(site: Site, data: Sequence[str]):
    """By a command that pyinfra really runs, here on this machine."""
    config = (ROOT / "config.py").read_text() + "from pyinfra import config\nconfig.SUDO = False\n"
    (site.folder / "config.py").write_text(config)
    (site.folder / "slow.py").write_text(SLOW)
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra", "@local", "slow.py", "-y", *data],
        cwd=site.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "... Launch | Slow: @local (chat-0: load) 5 s" in done.stderr.splitlines()
    assert "@@progress" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("scenario", "outcome", "last"),
    [
        (
            {"unreachable": ["gpu1", "gpu2", "gpu3", "lb1"]},
            "not reached",
            "FAILED, not reached: gpu1, gpu2, gpu3, lb1. The 6 replicas were not looked at.",
        ),
        (
            {"lost_gpu": ["gpu1", "gpu2", "gpu3"], "unreachable": ["lb1"]},
            "FAILED",
            "FAILED: gpu1, gpu2, gpu3. FAILED, not reached: lb1. 6 of 6 replicas serve.",
        ),
        (
            {"raises": "announce"},
            "not finished",
            "NOT FINISHED: gpu1, gpu2, gpu3, lb1. 6 of 6 replicas serve.",
        ),
    ],
)
def test_the_verdict_comes_last_whatever_ends_the_run(
    site: Site, scenario: dict[str, Any], outcome: str, last: str
):
    done = site.run(**scenario)
    assert done.status == 1
    assert done.verdict["gpu1"][1] == outcome and done.verdict["gpu1"][2]
    assert done.lines[-2] == last
    assert last in done.log


@pytest.mark.parametrize(
    ("raises", "place", "outcome"),
    [
        ("announce", "at “Plan the rolling update”, ", "not finished"),
        ("difference", "at “if admit(run):” of llm.py line ", "not begun"),
    ],
)
def test_a_bug_of_ours_shows_no_traceback(site: Site, raises: str, place: str, outcome: str):
    done = site.run(raises=raises)
    assert done.status == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.lines) <= MOST_UNCHANGED
    printed = [line for line in done.lines if "an error of ours" in line]
    assert printed == ["--> This is a bug of pyinfra-llm: RuntimeError: an error of ours"]
    assert any(line.strip().startswith(place) for line in done.lines)
    assert {row[1] for row in done.verdict.values()} == {outcome}
    assert "Traceback (most recent call last)" in done.log and printed[0] in done.log
    assert not (site.folder / "pyinfra-debug.log").exists()


def test_a_bug_in_the_verdict_shows_no_traceback(site: Site):
    done = site.run(raises="verdicts")
    assert done.status == 1
    assert "This is a bug of pyinfra-llm: RuntimeError" in done.stderr
    assert "Traceback" not in done.stderr and "Traceback" in done.log


def test_an_error_in_another_deploy_file_is_no_bug_of_ours(site: Site):
    (site.folder / "other.py").write_text(
        "from roles.stages.load import load\n\nload()\nnothing.there()\n"
    )
    site.deploy = "other.py"
    done = site.run()
    assert done.status == 1 and "Traceback" not in done.stderr
    assert "--> An error ended the run: NameError: name 'nothing' is not defined" in done.lines
    assert any("“nothing.there()” of other.py line 4" in line for line in done.lines)
    assert "Traceback" in done.log


def test_before_the_first_deploy_there_is_no_key_of_engines(site: Site):
    site.deploy = str(ROOT / "deploys/preflight.py")
    done = site.run()
    assert done.status == 0, done.stderr
    assert sum("engines.key is not there" in line for line in done.lines) == 1
    site.deploy = str(ROOT / "deploys/validate.py")
    done = site.run()
    assert done.status == 1 and "keys.py" not in done.stderr
    assert any(line.startswith("balancer.engine_key_file: ") for line in done.lines)


def test_a_replica_that_loads_is_not_said_to_serve(site: Site):
    (site.folder / "site").mkdir()
    (site.folder / "site/engines.key").write_text(KEY)
    (site.folder / "site/engines.key").chmod(0o600)
    site.deploy = str(ROOT / "deploys/preflight.py")
    done = site.run(loading=["gpu1"])
    assert done.status == 0, done.stderr
    assert done.verdict["gpu1"][0] == "0 + 2 loading / 2" and done.verdict["gpu2"][0] == "2 / 2"
    assert done.lines[-2] == "Nothing changed. 4 of 6 replicas serve; 2 are loading."


@pytest.mark.parametrize("deploy", ["plan", "discover"])
def test_who_looks_at_no_replica_shows_none(site: Site, deploy: str):
    site.deploy = str(ROOT / f"deploys/{deploy}.py")
    done = site.run()
    assert done.status == 0, done.stderr
    assert set(done.verdict.values()) == {("", "unchanged", "")}
    assert not any("?" in line for line in done.lines)
    assert done.lines[-2] == "Nothing changed. The 6 replicas were not looked at."


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_in_order(site: Site, number: signal.Signals):
    process = site.start({"old": {"gpu1": {}}, "slow_s": {"gpu1": 120}}, ())
    assert process.stdout is not None and process.stderr is not None
    begun = read_until(process.stderr, "    changed lb1: Drain batch 1\n")
    # The next operation is the slow one.
    time.sleep(1)
    process.send_signal(number)
    began = time.monotonic()
    stderr = begun + process.stderr.read()
    status = process.wait(timeout=60)
    done = Printed(status, process.stdout.read(), stderr, site.folder)
    assert time.monotonic() - began < 60
    assert done.status == 128 + number
    goes_on = "    gpu1 may go on by itself: Launch | Move batch 1 (chat-0, chat-1)"
    interrupted = done.lines.index(f"Interrupted by {number.name}.")
    assert done.lines[interrupted + 1] == goes_on
    assert done.verdict["gpu1"][:2] == ("? / 2", "not finished")
    checks = json.loads((site.folder / "reports/report.json").read_text())["checks"]
    left = {one["host"]: one for one in checks if one["outcome"] == "fail"}
    assert "Launch | Move batch 1" in left["gpu1"]["evidence"]
    assert "Wait" in left["gpu1"]["remedy"] and "Run again" in left["gpu2"]["remedy"]
    assert not (site.folder / "reports/durations.json").exists()
    assert done.lines[-2].startswith("INTERRUPTED. NOT FINISHED: gpu1, gpu2, gpu3, lb1. 4 of 6")
    assert done.lines[-2].endswith(f" Next: pyinfra site.py {site.deploy} -y")


@pytest.mark.parametrize(
    ("number", "hangs", "waiting", "outcome"),
    [
        (signal.SIGINT, "connect", "... connecting: gpu1 5 s", "not begun"),
        (signal.SIGTERM, "Answers", "... looking at what is there: gpu1 5 s", "not begun"),
        (
            signal.SIGTERM,
            "NotServing",
            "... Launch | Replicas serve: gpu1 (chat-0, chat-1) 5 s",
            "not finished",
        ),
        (signal.SIGINT, "Observations", "... Validation | ", "not finished"),
    ],
)
def test_a_signal_at_any_stage_ends_with_the_verdict(
    site: Site, number: signal.Signals, hangs: str, waiting: str, outcome: str
):
    process = site.start({"hangs": hangs}, ())
    assert process.stdout is not None and process.stderr is not None
    begun = read_until(process.stderr, waiting)
    process.send_signal(number)
    stderr = begun + process.stderr.read()
    status = process.wait(timeout=60)
    done = Printed(status, process.stdout.read(), stderr, site.folder)
    assert done.status == 128 + number
    assert f"Interrupted by {number.name}." in done.lines and "Traceback" not in stderr
    assert done.verdict["gpu1"][1] == outcome
    assert done.lines[-2].startswith("INTERRUPTED. ")
    assert done.lines[-2].endswith(f" Next: pyinfra site.py {site.deploy} -y")


LOCAL = """
from roles.fleet.inventory import check

gpu_hosts = [("@local", {"llm": {"address": "127.0.0.1", "gpus": "1x NVIDIA L40S"}})]
service = {
    "name": "chat",
    "model": "Qwen/Qwen2.5-14B-Instruct",
    "max_model_len": 4096,
    "single_endpoint": True,
    "route": {"api_key_file": "api.key"},
}
all = (gpu_hosts, {"llm": {"services": [service]}})
check(__file__)
"""


def test_a_signal_while_a_real_command_runs(site: Site):
    config = (ROOT / "config.py").read_text() + "from pyinfra import config\nconfig.SUDO = False\n"
    (site.folder / "config.py").write_text(config)
    (site.folder / "site.py").write_text(LOCAL)
    slow = SLOW.replace('load"', 'load 63%"').replace("sleep(7)", "sleep(15)")
    (site.folder / "slow.py").write_text(f"{slow}\nfrom roles.stages.load import load\nload()\n")
    process = site.python("pyinfra", "site.py", "slow.py", "-y")
    assert process.stdout is not None and process.stderr is not None
    waiting = "... Launch | Slow: @local (chat-0: load 63%) 5 s\n"
    begun = read_until(process.stderr, waiting)
    process.send_signal(signal.SIGINT)
    stderr = begun + process.stderr.read()
    done = Printed(process.wait(timeout=60), process.stdout.read(), stderr, site.folder)
    assert done.status == 128 + signal.SIGINT
    assert "    @local may go on by itself: Launch | Slow (chat-0: load 63%)" in done.lines
    assert done.verdict["@local"][1] == "not finished"
    assert done.lines[-2].endswith(" Next: pyinfra site.py slow.py -y")


def test_json_stays_pure(site: Site):
    done = site.run("--json", old={"gpu1": {}})
    assert done.status == 0, done.stderr
    assert json.loads(done.stdout)["results"]["failed_hosts"] == []
    assert done.verdict["gpu1"][1] == "changed"


def test_verbose_shows_all(site: Site):
    done = site.run("-v")
    assert done.status == 0, done.stderr
    for text in ("No changes", "Starting operation: Launch | Replicas serve", "Grand total"):
        assert text in done.stderr
    assert "Plan for chat" in done.stderr
    assert done.lines[-2] == "Nothing changed. 6 of 6 replicas serve."


def test_a_dry_run_says_how_long_it_took_before(site: Site):
    (site.folder / "reports").mkdir()
    took = {"gpu1": {"Launch | Move batch": 40}, "gpu3": {"Launch | Move batch": 60}}
    (site.folder / "reports/durations.json").write_text(json.dumps(took))
    done = site.run("--dry", old={"gpu1": {}, "gpu3": {}})
    expected = "  expected: 100 s for 2 batches (last time gpu1 40 s, gpu3 60 s)"
    assert expected in done.lines


def test_a_dry_run_says_so(site: Site):
    done = site.run("--dry", old={"gpu1": {"max_model_len": 2048}})
    assert done.status == 0, done.stderr
    assert "  gpu1/chat-0, gpu1/chat-1: max_model_len 2048 → 4096" in done.lines
    assert "  batch 1: gpu1" in done.lines
    assert not any(line.strip() == "--> Detected changes:" for line in done.lines)
    assert [row[1] for row in done.verdict.values()] == [
        "would change", "unchanged", "unchanged", "would change",
    ]  # fmt: skip
    assert done.lines[-2] == (
        "A dry run: nothing was changed. Would change: gpu1, lb1. 6 of 6 replicas serve."
    )


def test_other_commands_of_pyinfra_are_left_as_they_are(site: Site):
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra", "@local", "-y", "exec", "--", "echo", "hello"],
        cwd=site.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert "[@local] Connected" in done.stderr and "HOST  REPLICAS" not in done.stderr
    assert not (site.folder / "reports").exists()


def test_a_deploy_of_another_has_no_verdict_of_ours(site: Site):
    (site.folder / "other.py").write_text("")
    site.deploy = "other.py"
    done = site.run()
    assert done.status == 0 and "HOST  REPLICAS" not in done.stderr
    assert not (site.folder / "reports").exists()
