"""How long plans take, printed; the test's condition is growth within one run, never a time."""

import json
import random
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter, process_time

from roles.hardware import Gpu, Hardware
from roles.topology import ServiceSettings, plan_fleet
from roles.topology.plan_command import answers
from roles.topology.serving import serve

ROOT = Path(__file__).parents[2]
SERVICE = ServiceSettings.model_validate(
    {
        "name": "s",
        "model": "meta-llama/Llama-3.1-70B-Instruct",
        "max_model_len": 4096,
        "concurrency": 4000,
    }
)


def fleet(hosts: int) -> dict[str, Hardware]:
    """Hosts of eight GPUs, no two alike in memory, as equal ones are planned once."""
    return {
        f"host-{number}": Hardware(
            tuple(
                Gpu(
                    index,
                    "NVIDIA H100 80GB HBM3",
                    81559 - number,
                    numa_node=index // 4,
                )
                for index in range(8)
            ),
            tuple((i, j, "NV18") for i in range(8) for j in range(i + 1, 8)),
        )
        for number in range(hosts)
    }


def seconds(hosts: int) -> float:
    """Time of a whole plan from nothing known."""
    machines = fleet(hosts)
    serve.cache_clear()
    begun = perf_counter()
    plan = plan_fleet(SERVICE, machines)
    taken = perf_counter() - begun
    assert len(plan.hosts) == hosts
    return taken


def test_a_plan_grows_linearly_with_the_fleet(capsys):
    seconds(10)
    small, large = seconds(100), seconds(1000)
    with capsys.disabled():
        print(f"\n1,000 hosts of 8 GPUs: {large:.2f} s, {large / small:.1f} times 100 hosts")
    # Ten times is linear, a hundred times quadratic.
    assert large < 30 * small


def test_a_thousand_random_plans(capsys):
    chance = random.Random(1)
    lines = [
        json.dumps(
            {
                "model": chance.choice(MODELS),
                "host": {
                    "gpus": [{"name": chance.choice(CARDS)}] * chance.choice([1, 2, 3, 4, 8]),
                    "links": chance.choice(["nvlink", "pcie"]),
                },
                "max_model_len": chance.randint(2000, 16000),
                "workload": {
                    "input_tokens": chance.randint(100, 1000),
                    "output_tokens": chance.randint(50, 800),
                    "concurrency": chance.randint(1, 500),
                },
            }
        )
        for _ in range(1000)
    ]
    begun = process_time()
    planned = [answer for answer in answers(lines) if "error" not in answer]
    with capsys.disabled():
        print(f"\n1,000 random plans, {len(planned)} fit: {process_time() - begun:.2f} s of CPU")
    assert len(planned) > 500


MODELS = (
    *("Qwen/Qwen3-8B", "Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-20b"),
    *("nvidia/Llama-3.1-70B-Instruct-FP8", "deepseek-ai/DeepSeek-R1", "openai/gpt-oss-120b"),
)
CARDS = (
    *("NVIDIA L40S", "NVIDIA H100 80GB HBM3", "NVIDIA A10G", "NVIDIA GeForce RTX 4090"),
    *("NVIDIA B200", "NVIDIA H200"),
)
KINDS = (
    "8x NVIDIA H100 80GB HBM3",
    "4x NVIDIA A100-SXM4-80GB",
    "2x NVIDIA L40S",
    "4x NVIDIA A10G",
    "1x NVIDIA L4",
    "2x NVIDIA GeForce RTX 4090",
    "8x NVIDIA H200",
    "8x NVIDIA B200",
)
INVENTORY = """
from roles.fleet.inventory import check

gpu_hosts = [
    (
        f"gpu-{{i}}",
        {{
            "ssh_hostname": f"10.{{i >> 16}}.{{i >> 8 & 255}}.{{i & 255}}",
            "llm": {{"gpus": {kinds!r}[i % 8]}},
        }},
    )
    for i in range({hosts})
]
balancers = [("lb-1", {{"ssh_hostname": "10.255.0.1"}})]
_settings = {{
    "services": [
        {{
            "name": "q",
            "model": "Qwen/Qwen2.5-14B-Instruct",
            "max_model_len": 4096,
            "concurrency": 4000,
        }}
    ],
    "balancer": {{"api_key_file": "no.key"}},
}}
all = (gpu_hosts + balancers, {{"llm": _settings}})

check(__file__)
"""


def cpu_seconds(folder: Path, hosts: int) -> float:
    """CPU time of the whole command over an inventory of so many hosts, of eight kinds."""
    file = folder / f"fleet{hosts}.py"
    file.write_text(INVENTORY.format(kinds=KINDS, hosts=hosts))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "roles.topology", "fleet", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert any(line.startswith(f"gpu-{hosts - 1} ") for line in done.stdout.splitlines())
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_an_inventory_is_planned_in_time_that_grows_with_its_hosts(tmp_path: Path, capsys):
    cpu_seconds(tmp_path, 8)
    start, small, large = (cpu_seconds(tmp_path, hosts) for hosts in (8, 1000, 5000))
    with capsys.disabled():
        print(
            f"\npython -m roles.topology fleet, CPU time: {start:.2f} s for 8 hosts, {small:.2f} s "
            f"for 1,000, {large:.2f} s for 5,000"
        )
    # Five times the hosts: linear is 5, quadratic 25.
    assert large - start < 9 * (small - start)
