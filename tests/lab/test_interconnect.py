"""All-reduces on real hosts, over gloo: what they measure is recorded, and the run goes by it."""

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import yaml

from tests.lab import hosts, network
from tests.lab.conftest import ROOT, Fleet, Run, wait_until

FIRST, SECOND = "llm-engine@qwen2.5-14b-0.service", "llm-engine@qwen2.5-14b-1.service"
# What hangs takes all of it; what works on a busy machine must be done within it.
LIMITED = ('"launch": {', '"interconnect": {"timeout_s": 20},\n    "launch": {')
# Stops one process of each test whose name is given, until its standard input is closed. It goes
# before all others, or a test could come to its end unseen.
STOPPER = """
import contextlib, os, select, signal, sys
with contextlib.suppress(OSError):
    os.nice(-20)
print("looks", flush=True)
stopped = set()
while not select.select([sys.stdin], [], [], 0.003)[0]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = open("/proc/%s/comm" % pid).read().strip()
        except OSError:
            continue
        if name in sys.argv[1:] and not any(os.path.exists("/proc/" + one) for one in stopped):
            # It may have ended by now: the other rank of one that was stopped does.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGSTOP)
                stopped.add(pid)
"""


@contextmanager
def hanging(host: str, *names: str) -> Iterator[None]:
    """Let one rank of each all-reduce of these names hang on a host."""
    line = f"sudo python3 -c {shlex.quote(STOPPER)} {' '.join(names)}"
    stopper = subprocess.Popen(
        network.inside([*hosts.ssh_command(host), line]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert stopper.stdout and stopper.stdout.readline() == "looks\n"
        yield
    finally:
        stopper.communicate(timeout=300)
    assert stopper.returncode == 0


def verdicts(inventory_folder, host: str) -> list[dict]:
    text = (inventory_folder / "hardware" / "lab.yaml").read_text()
    return yaml.safe_load(text)[host].get("interconnect", [])


def left_over(fleet: Fleet, host: str) -> str:
    """Processes of a measurement, and its unit."""
    return fleet.ssh(
        host, "cat /proc/[0-9]*/comm | grep '^link-'; systemctl is-active llm-interconnect; true"
    )


def test_the_first_run_records_links_that_work(fleet: Fleet, first_run: Run):
    found = {host: verdicts(ROOT / "inventories", host) for host in ("gpu2", "gpu3")}
    assert [(one["gpus"], one["p2p"]) for one in found["gpu2"]] == [([0, 1], True), ([0, 1], False)]
    assert [(one["gpus"], one["p2p"]) for one in found["gpu3"]] == [([0, 1], True), ([2, 3], True)]
    for one in found["gpu2"] + found["gpu3"]:
        assert (one["outcome"], one["library"], one["driver_version"]) == (
            "works",
            "gloo",
            "595.80",
        )
        assert one["gb_s"] > 0
    assert "GPUs 2,3: works" in first_run.text
    environment = fleet.ssh("gpu3", "sudo cat /etc/llm/replicas/*/current/environment")
    assert "NCCL_P2P_DISABLE" not in environment
    assert left_over(fleet, "gpu3").split() == ["inactive"]


def unit_processes(fleet: Fleet, host: str) -> set[str]:
    """All processes of the first replica's unit."""
    found = fleet.ssh(host, f"grep -ls /{FIRST} /proc/[0-9]*/cgroup | cut -d / -f 3; true")
    return set(found.split())


def test_a_server_that_is_killed_leaves_no_worker(fleet: Fleet):
    main, pids = fleet.engines("gpu3")[FIRST], unit_processes(fleet, "gpu3")
    assert len(pids - {main}) >= 2, pids
    fleet.ssh("gpu3", f"sudo kill -9 {main}")
    # The test after this one stops what systemd starts in its place.
    wait_until(lambda: not pids & unit_processes(fleet, "gpu3"), "the end of its workers", 60)


def test_gpus_that_hang_go_without_p2p_or_stop_their_host_with_its_new_plan(
    fleet: Fleet, inventory
):
    limited = inventory(LIMITED)
    options = ("--limit", "gpu2", "--limit", "gpu3", "--data", "validate=false")
    before = fleet.engines("gpu3")[SECOND]
    fleet.ssh("gpu2", f"sudo systemctl stop {FIRST}")
    fleet.ssh("gpu3", f"sudo systemctl stop {FIRST}")
    with hanging("gpu2", "link-p2p"), hanging("gpu3", "link-p2p", "link-nop2p"):
        run = fleet.deploy(*options, inventory=limited)
    assert run.status == 1
    assert run.failed() == {"gpu3"}, run.text

    # GPUs that never work together stop their host.
    assert "GPUs 2,3 were not measured, as replicas serve from them" in run.text, run.text
    assert "the verdicts change its plan; nothing was started or stopped here" in run.text
    assert "GPUs 0 and 1 hang in an all-reduce" in run.text
    assert [one["outcome"] for one in verdicts(limited.parent, "gpu3")] == ["hangs", "hangs"]
    assert fleet.engines("gpu3") == {SECOND: before}

    # P2P that hangs is off in the same run.
    assert "(P2P: hangs" in run.text
    found = verdicts(limited.parent, "gpu2")
    assert [(one["p2p"], one["outcome"]) for one in found] == [(True, "hangs"), (False, "works")]
    folder = f"/etc/llm/replicas/{FIRST[len('llm-engine@') : -len('.service')]}/current"
    files = fleet.ssh("gpu2", f"sudo cat {folder}/*")
    assert 'NCCL_P2P_DISABLE="1"' in files
    assert "disable-custom-all-reduce: true" in files
    assert list(fleet.engines("gpu2")) == [FIRST]
    for host in ("gpu2", "gpu3"):
        assert left_over(fleet, host).split() == ["inactive"]

    again = fleet.deploy("--limit", "gpu2", "--data", "validate=false", inventory=limited)
    assert again.status == 0, again.text
    assert again.changes == 0, again.text
    assert "qwen2.5-14b-0 does without P2P: with it GPUs 0 and 1 hang" in again.log
