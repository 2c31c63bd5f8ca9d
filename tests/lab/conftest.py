"""The lab for a whole test run: fresh hosts, and the product run over them as its user would."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import holder, hosts, keys, old_fleet
from tests.lab.inventories import llama_inventory
from tests.lab.take_over import TakeOver, take_over

ROOT = Path(__file__).parents[2]
MODEL = "Qwen/Qwen2.5-14B-Instruct"
BALANCER = "https://10.99.0.10"
RUN_TIMEOUT_S = 1500
GUESTS = "guests"
"""The lock that test runs beside the lab's holder share."""
ON_VLLM = ("test_takeover.py", "test_main_job.py", "test_interconnect.py")
"""Files whose tests need vLLM, in their order; all others come after them, on llama.cpp."""
WITH_BARE = "test_bare_to_served.py"
"""Comes last: it waits for the bare hosts, which a test run beside this one may have."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what needs vLLM first: the hosts go over to llama.cpp once, and not back."""
    order = {name: place for place, name in enumerate(ON_VLLM, -len(ON_VLLM))} | {WITH_BARE: 1}
    items.sort(key=lambda item: order.get(item.path.name, 0))


def missing_rights() -> str | None:
    """Why no hosts can be booted here, or None."""
    if os.geteuid() != 0:
        return "root is needed to boot hosts"
    probe = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True)
    return None if probe.returncode == 0 else "namespaces cannot be made here"


def wait_until(true: Callable[[], bool], what: str, timeout_s: float = 600) -> None:
    """Wait until something is true, which must come in time."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come in time"
        time.sleep(0.2)


@dataclass(frozen=True)
class Run:
    """One run of the product: its exit status and all that it printed."""

    status: int
    text: str

    @property
    def log(self) -> str:
        """The run's whole log, which its end names: also what was not on the screen."""
        return (
            ROOT / re.findall(r"^The whole log: (\S+)$", self.text, re.MULTILINE)[-1]
        ).read_text()

    @property
    def changes(self) -> int:
        """Operations that changed something, over all hosts, by pyinfra's own table."""
        total = next(line for line in self.log.splitlines() if "Grand total" in line)
        return int(re.sub(r"\D", "", total.split()[3]) or 0)

    def ssh_commands(self, host: str) -> int:
        """Commands that were run on a host, of a run with -vv."""
        return len(re.findall(rf"^ *\[{host}\] +>>> ", self.text, re.MULTILINE))

    def failed(self) -> set[str]:
        """Hosts with a failed check in the log's table of all checks."""
        table = re.split(r"\nHOST +REPLICAS", self.log.split("\nAll checks:\n")[-1])[0]
        rows = [line.split() for line in table.splitlines()]
        return {row[0] for row in rows if "fail" in row[:8]}


class Fleet:
    """The lab as its operator sees it."""

    def deploy(self, *options: str, inventory: Path | str = "inventories/lab.py") -> Run:
        """`pyinfra INVENTORY deploys/llm.py -y OPTIONS`."""
        return self.pyinfra(inventory, "deploys/llm.py", "-y", *options)

    def pyinfra(self, *arguments: Any, **options: Any) -> Run:
        """pyinfra on the control side, from the repository's root."""
        program = str(Path(sys.executable).with_name("pyinfra"))
        # One that hangs must not take the time of all tests that come after it.
        options.setdefault("timeout", RUN_TIMEOUT_S)
        done = hosts.run_inside(
            [program, *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        return Run(done.returncode, done.stdout)

    def start(self, *arguments: Any) -> subprocess.Popen[str]:
        """pyinfra in the background, its output in a pipe."""
        from tests.lab import network

        program = str(Path(sys.executable).with_name("pyinfra"))
        return subprocess.Popen(
            network.inside([program, *map(str, arguments)]),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ask(
        self, key: str | None = None, url: str = BALANCER, timeout_s: int = 300
    ) -> tuple[int, Any]:
        """One chat completion from the control side: HTTP status (0: none) and the body."""
        sent = json.dumps(
            {"model": MODEL, "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}
        )
        key = keys.API_KEYS[0].read_text().strip() if key is None else key
        options = ["-sk", "-m", str(timeout_s), "-w", "\n%{http_code}", "-H", "@-", "-d", sent]
        done = hosts.run_inside(
            ["curl", *options, f"{url}/v1/chat/completions"],
            input=f"Authorization: Bearer {key}\nContent-Type: application/json\n",
            capture_output=True,
            text=True,
        )
        body, _, status = done.stdout.rpartition("\n")
        try:
            return int(status), json.loads(body)
        except ValueError:
            return int(status or 0), body

    @contextmanager
    def asking(self, once: Callable[[], int] | None = None) -> Iterator[list[int]]:
        """Ask the balancer one completion after the other meanwhile; their statuses.

        `once` asks one, and returns its status.
        """
        statuses: list[int] = []
        over = threading.Event()

        def ask() -> None:
            # A pause leaves the engines that start some of the one machine.
            while not over.wait(0.1):
                # Whatever ends this thread is no answer.
                statuses.append(0)
                statuses[-1] = once() if once else self.ask()[0]

        asker = threading.Thread(target=ask)
        asker.start()
        try:
            yield statuses
        finally:
            over.set()
            asker.join()
        assert len(statuses) > 5, "too few were asked"

    def ssh(self, host: str, command: str) -> str:
        """What a command on a host printed; it must succeed."""
        done = hosts.ssh(host, command)
        assert done.returncode == 0, f"{host}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def engines(self, host: str) -> dict[str, str]:
        """Main process of each replica on a host that is active."""
        lines = self.ssh(
            host,
            "for u in $(systemctl list-units --plain --no-legend --state=active 'llm-engine@*' "
            "| awk '{print $1}'); do echo $u $(systemctl show -P MainPID $u); done",
        )
        return dict(line.split() for line in lines.splitlines())

    def upstream(self) -> dict[str, bool]:
        """Each replica of the balancer's upstream, and whether it gets requests."""
        text = self.ssh("lb1", "cat /etc/nginx/llm/upstreams.conf")
        found = re.findall(r"^\s*server (10\.[0-9.:]+)([^;]*);", text, re.MULTILINE)
        return {address: "down" not in rest.split() for address, rest in found}


@pytest.fixture(scope="session")
def lab() -> Iterator[Fleet]:
    """Booted hosts as a provider hands them over; gone at the end.

    LAB_REUSE=1 takes the lab that is up, as it is, and leaves it up: for writing tests.
    LAB_BESIDE=1 makes this the guest of another test run, which boots the lab and ends it after
    both.
    """
    if why := missing_rights():
        if os.environ.get("CI"):
            pytest.fail(f"CI runs the lab: {why}")
        pytest.skip(f"lab: {why}")
    if os.environ.get("LAB_REUSE") and any(hosts.running().values()):
        yield Fleet()
        return
    if os.environ.get("LAB_BESIDE"):
        wait_for_lab()
        with holder.locked(GUESTS, is_shared=True):
            assert hosts.READY.exists(), "the test run beside this one has ended"
            yield Fleet()
        return
    if holder.who() == holder.KEPT:
        # The demo's fleet: `make demo` makes it again. Another test run's would be an error.
        hosts.down(force=True)
    hosts.up()
    shutil.rmtree(ROOT / "reports", ignore_errors=True)
    # What was measured on other hosts of these names.
    (ROOT / "inventories/hardware/lab.yaml").unlink(missing_ok=True)
    yield Fleet()
    with holder.locked(GUESTS):
        hosts.down()


def wait_for_lab(patience_s: float = 120) -> None:
    """Wait until the test run beside this one has booted the lab; fail where there is none."""
    seen = time.monotonic()
    while not (holder.held_by_other() and hosts.READY.exists()):
        if holder.held_by_other():
            seen = time.monotonic()
        assert time.monotonic() < seen + patience_s, "no test run beside this one boots the lab"
        time.sleep(0.5)


@pytest.fixture(scope="session")
def bare_hosts(lab: Fleet) -> Iterator[None]:
    """The bare hosts and the driver repository, which are one test run's at a time."""
    with holder.locked("bare-hosts"):
        yield


@pytest.fixture(scope="session")
def bare_lab(lab: Fleet, bare_hosts: None) -> Iterator[Fleet]:
    """The lab with a balancer for the bare hosts alone."""
    with hosts.booted("lb3"):
        yield lab


@pytest.fixture(scope="session")
def taken_over(lab: Fleet) -> TakeOver:
    """The take-over of gpu1 and lb1 from an older commit; the other hosts are fresh still."""
    return take_over(lab)


@pytest.fixture(scope="session")
def first_run(lab: Fleet, taken_over: TakeOver) -> Run:
    """The first run over the whole fleet: gpu1 and lb1 have been taken over, the others are fresh.

    gpu2 has kept an engine of an earlier run; on gpu3 it is installed, once for all tests.
    """
    old_fleet.put_engine("gpu2")
    return lab.deploy()


@pytest.fixture
def fleet(lab: Fleet, first_run: Run) -> Fleet:
    """The fleet after a good first run."""
    assert first_run.status == 0, first_run.text
    return lab


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's inventory with llama.cpp in place of vLLM."""
    return llama_inventory(tmp_path_factory.mktemp("llama") / "lab.py")


@dataclass(frozen=True)
class UnderLoad:
    """A run, and the statuses of the completions that were asked for meanwhile."""

    run: Run
    statuses: list[int]


@pytest.fixture(scope="session")
def to_llama(lab: Fleet, llama: Path) -> UnderLoad:
    """The run that brings the hosts to llama.cpp, from vLLM where it is what they run."""
    with lab.asking() as statuses:
        run = lab.deploy(inventory=llama)
    return UnderLoad(run, statuses)


@pytest.fixture(scope="session")
def llama_run(to_llama: UnderLoad) -> Run:
    """The run that brings the hosts to llama.cpp."""
    return to_llama.run


@pytest.fixture(scope="session")
def llama_fleet(lab: Fleet, llama_run: Run) -> Fleet:
    """The fleet with llama.cpp: as vLLM's to operate, and ready in a moment."""
    assert llama_run.status == 0, llama_run.text
    return lab


@pytest.fixture
def inventory(tmp_path: Path):
    """Makes an inventory that is the lab's but for some text in it."""

    def changed(*replacements: tuple[str, str]) -> Path:
        text = (ROOT / "inventories/lab.py").read_text()
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "lab.py"
        file.write_text(text)
        return file

    return changed
