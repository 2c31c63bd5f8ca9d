"""How long plans take, printed; the test's condition is growth within one run, never a time."""

from time import perf_counter

from roles.hardware import Gpu, Hardware
from roles.topology import ServiceSettings, plan_fleet
from roles.topology.serving import serve

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
