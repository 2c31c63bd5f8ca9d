"""The options that vLLM starts with."""

import json
from typing import Any

import pytest
import yaml

from roles.engine import Placement, Served, Start, VllmSettings, deployment
from roles.engine.vllm.start import options_of
from roles.fleet import served
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
        found = options_of(
            replica, Served("m", "/w", 2), VllmSettings(), Placement("127.0.0.1", 29000, 60)
        )
        return [found.get(name) for name in CHANGES]

    assert changed(4096) == [64, None, 0.92, None]
    assert changed(8192) == [64, 2048, 0.95, None]
    assert changed(9600) == [64, 2048, 0.95, True]


@pytest.mark.parametrize(
    ("requirement", "folder"),
    [("vllm==0.33.0", "/var/lib/llm/s-0"), ("vllm==0.32.0", None)],
)
def test_stacks_of_an_engine_that_stands_still_are_in_its_own_folder(
    requirement: str, folder: str | None
):
    service = ServiceSettings.model_validate(
        {"name": "s", "model": "Qwen/Qwen2.5-7B-Instruct", "max_model_len": 4096}
    )
    (replica,) = plan_host(service, "h", declared_hardware("1x NVIDIA L40S", None)).replicas
    build = VllmSettings(requirement=requirement)
    start = deployment(build).start(
        replica, Served("m", "/w", 2), build, Placement("127.0.0.1", 29000, 60)
    )
    options = yaml.safe_load(start.files["options.yaml"])
    found = json.loads(options.get("watchdog-config", '{"dump_dir": null}'))
    assert found == {"dump_dir": folder}
    # It ends its requests itself before systemd ends it.
    (stop,) = (line for line in start.unit if line.startswith("TimeoutStopSec="))
    assert options["shutdown-timeout"] < int(stop.partition("=")[2])


def started(
    arguments: dict[str, int] | None = None,
    requirement: str = "vllm==0.33.0",
    card: str = "nvidia-l40s",
) -> Start:
    service = ServiceSettings.model_validate(
        {"name": "s", "model": "Qwen/Qwen3-8B", "max_model_len": 4096, "arguments": arguments or {}}
    )
    (replica,) = plan_host(service, "h", declared_hardware("1x NVIDIA L40S", None)).replicas
    build = VllmSettings(requirement=requirement)
    place = Placement("127.0.0.1", 29000, 60, card=card)
    return deployment(build).start(replica, served(service), build, place)


@pytest.mark.parametrize(
    ("requirement", "arguments", "limit"),
    [
        # 256 at once on this card by vLLM's default.
        ("vllm==0.33.0", {}, 512),
        ("vllm==0.32.0", {}, 512),
        ("vllm==0.31.0", {}, None),
        ("vllm==0.33.0", {"max-num-seqs": 1000}, 2000),
        ("vllm==0.33.0", {"max-num-seqs": 8}, 256),
        ("vllm==0.33.0", {"max-num-queued-reqs": 7}, 7),
    ],
)
def test_requests_wait_within_limits(
    requirement: str, arguments: dict[str, int], limit: int | None
):
    options = yaml.safe_load(started(arguments, requirement).files["options.yaml"])
    assert options.get("max-num-queued-reqs") == limit


def test_it_waits_for_requests_for_less_time_than_its_unit():
    start = started()
    options = yaml.safe_load(start.files["options.yaml"])
    (stop,) = [line for line in start.unit if line.startswith("TimeoutStopSec=")]
    assert options["shutdown-timeout"] < int(stop.partition("=")[2])


def test_what_is_compiled_is_kept_by_version_and_card():
    def kept(**changes: Any) -> set[str]:
        environment = started(**changes).environment
        return {environment["VLLM_CACHE_ROOT"], environment["TRITON_CACHE_DIR"]}

    assert kept() == kept()
    assert all(one.startswith("/var/cache/llm/s-0/vllm-0.33.0-cuda-") for one in kept())
    assert not kept() & kept(requirement="vllm==0.32.0")
    assert not kept() & kept(card="nvidia-h100-80gb-hbm3")
