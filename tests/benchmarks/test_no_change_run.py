"""What a run costs that has nothing to do: SSH commands a host, and its time against Ansible's."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.ansible_fleet import Ansible
from tests.lab import hosts
from tests.lab.conftest import ROOT, Fleet

HOSTS = ["gpu1", "gpu2", "gpu3", "lb1"]
MOST_COMMANDS = {"gpu1": 3, "gpu2": 3, "gpu3": 3, "lb1": 7}
AIM = 0.25
ROUNDS = 3
# Run, not imported: pyinfra would put gevent into this process.
TIMED_PYINFRA = Path(__file__).with_name("timed_pyinfra.py")
TOKENS = ("Completions", "NotServing")
"""Facts that wait until replicas have answered with a token."""


def test_ssh_commands(llama_fleet: Fleet, llama: Path, capsys):
    run = llama_fleet.deploy("--data", "validate=false", "-vv", inventory=llama)
    assert (run.status, run.changes) == (0, 0), run.text
    commands = {host: run.ssh_commands(host) for host in HOSTS}
    with capsys.disabled():
        print(f"\nSSH commands of a no-change run: {commands}, at most {MOST_COMMANDS} allowed")
    assert all(commands[host] <= MOST_COMMANDS[host] for host in HOSTS)


def test_time_against_ansible(llama_fleet: Fleet, llama: Path, tmp_path: Path, capsys):
    ansible = Ansible(tmp_path, HOSTS)
    # What either compiles and caches is there from now on.
    ansible.play()
    timed(llama, tmp_path)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(timed(llama, tmp_path))
        theirs.append(ansible.play())
    best = min(ours, key=lambda one: one["wall"])
    ratio = best["wall"] / min(theirs)
    with capsys.disabled():
        print(f"\nno-change run, best of {ROUNDS}: {best['wall']:.1f} s, Ansible "
              f"{min(theirs):.1f} s = {ratio:.2f}, aim {AIM}\n{where(best)}")  # fmt: skip


def timed(inventory: Path, folder: Path) -> dict[str, Any]:
    """A run that changes nothing, and where its time went."""
    file = folder / "times.json"
    program = [sys.executable, TIMED_PYINFRA, file, inventory, "deploys/llm.py", "-y"]
    began = time.monotonic()
    done = hosts.run_inside(
        [*map(str, program), "--data", "validate=false"], cwd=ROOT, capture_output=True, text=True
    )
    wall = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    return {"wall": wall} | json.loads(file.read_text())


def where(run: Mapping[str, Any]) -> str:
    """A line a phase; questions and tokens are those of the host that took longest."""
    phases = dict(run["phases"])
    lines = [f"  {run['wall'] - sum(phases.values()):5.2f} s Python, inventory and plan, the end"]
    for phase, seconds in phases.items():
        asked = run["questions"][phase].values()
        tokens = max((sum(one.get(name, 0) for name in TOKENS) for one in asked), default=0)
        others = max(
            (sum(s for name, s in one.items() if name not in TOKENS) for one in asked), default=0
        )
        lines.append(
            f"  {seconds:5.2f} s {phase} (questions {others:.2f}, waiting for tokens {tokens:.2f})"
        )
    return "\n".join(lines)
