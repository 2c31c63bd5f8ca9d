"""The lab's amd-smi, and what its driver knows of processes, read as those of real hosts are."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from roles.hardware.outputs.amd_smi import parse_amd_smi
from roles.hardware.readings import AMD, GpuProcess, Output, Reading, read, utilization
from tests.render.simulated_gpus import TESTS, AmdHost

TOTAL = 196592


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AmdHost]:
    made = AmdHost(tmp_path)
    yield made
    made.server.close()


def reading(host: AmdHost) -> dict[int, Reading]:
    """What validation reads of a host, by the commands that it runs there."""
    outputs = {}
    for name, command in AMD.commands.items():
        done = host.smi(*command[1:])
        outputs[name] = Output(done.returncode == 0, done.stdout or done.stderr)
    found = read(AMD, outputs)
    assert (found.error, found.process_error) == ("", "")
    return dict(found.gpus)


def test_a_host_at_rest(host: AmdHost):
    found = reading(host)
    assert [(one.utilization_percent, one.processes) for one in found.values()] == [(0, ())] * 2
    assert all(one.memory_mib and one.memory_mib < 500 for one in found.values())


def test_a_host_that_serves(host: AmdHost):
    host.busy = [0, 97]
    host.holds = [{"gpu": 1, "pid": 4711, "name": "VLLM::Worker_TP0", "mib": 150000}]
    found = reading(host)
    assert found[1].processes == (GpuProcess(4711, "VLLM::Worker_TP0", 150000),)
    assert found[1].memory_mib and 150000 < found[1].memory_mib < TOTAL
    assert found[0].processes == () and found[0].memory_mib and found[0].memory_mib < 500
    assert utilization(AMD, host.smi(*AMD.load[1:]).stdout) == {0: 0, 1: 97}


def test_memory_is_never_more_than_a_card_has(host: AmdHost):
    host.holds = [{"gpu": 0, "pid": 1, "name": "x", "mib": 2 * TOTAL}]
    assert reading(host)[0].memory_mib == TOTAL


def test_the_table_of_monitor(host: AmdHost):
    host.busy = [12, 0]
    gpus = parse_amd_smi(host.smi("monitor").stdout).gpus
    assert [(gpu.utilization_percent, gpu.memory_total_mib) for gpu in gpus] == [
        (12, TOTAL),
        (0, TOTAL),
    ]


@pytest.mark.parametrize("without", ["module", "driver"])
def test_where_no_driver_answers_the_tool_fails(host: AmdHost, without: str):
    if without == "module":
        (host.folder / "loaded.json").write_text("{}")
    else:
        (host.folder / "socket").unlink()
    for command in AMD.commands.values():
        done = host.smi(*command[1:])
        assert (done.returncode, done.stdout) == (255, "")
        assert "driver not initialized" in done.stderr


def driver() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lab_driver", TESTS / "lab/gpu/driver.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ENGINE = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); {}print(1, flush=True); "
ENGINE += "time.sleep(60)"


@pytest.mark.parametrize(
    ("environment", "listens", "gpu", "share"),
    [
        ({"HIP_VISIBLE_DEVICES": "1"}, True, 1, 0.92),
        ({"ROCR_VISIBLE_DEVICES": "1"}, True, 1, 0.92),
        ({"HIP_VISIBLE_DEVICES": "0"}, False, 0, None),
        ({"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "0"}, True, 1, 0.92),
    ],
)
def test_the_driver_sees_the_processes_of_amds_gpus(
    host: AmdHost, environment: dict[str, str], listens: bool, gpu: int, share: float | None
):
    lab = driver()
    program = ENGINE.format("" if listens else "s.close(); ")
    command = ["bash", "-c", f'exec -a VLLM::EngineCore "{sys.executable}" -c "$1"', "sh", program]
    engine = subprocess.Popen(
        command, stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"], **environment}
    )
    try:
        assert engine.stdout and engine.stdout.readline()
        profile = lab.with_amd(lab.json.loads((host.folder / "profile.json").read_text()))
        # Labs on this machine may run engines of their own.
        (held,) = [one for one in lab.holders(profile) if one.pid == engine.pid]
        assert held.gpu == gpu
        assert held.mib == (round(TOTAL * share) if share else lab.CONTEXT_MIB)
    finally:
        engine.kill()
        engine.wait()
