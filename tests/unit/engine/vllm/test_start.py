"""The options that vLLM starts with."""

from roles.engine import Placement, Served
from roles.engine.vllm.start import options_of
from roles.hardware import declared_hardware
from roles.topology import ServiceSettings, plan_host

CHANGES = ("max-num-seqs", "max-num-batched-tokens", "gpu-memory-utilization", "enforce-eager")


def test_what_the_plan_changes_so_that_a_model_fits_is_set():
    def changed(max_model_len: int) -> list[object]:
        service = ServiceSettings.model_validate(
            {
                "name": "s",
                "model": "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4",
                "max_model_len": max_model_len,
                "min_concurrency": 2,
            }
        )
        plan = plan_host(service, "h", declared_hardware("2x NVIDIA GeForce RTX 4090", None))
        (replica,) = plan.replicas
        found = options_of(replica, Served("m", "/w", 2), Placement("127.0.0.1", 29000, 60))
        return [found.get(name) for name in CHANGES]

    assert changed(4096) == [64, None, 0.92, None]
    assert changed(8192) == [64, 2048, 0.95, None]
    assert changed(9600) == [64, 2048, 0.95, True]
