"""From a fleet's plans to what each host is to run: engines, keys, addresses."""

import json
from pathlib import Path
from typing import Any

import pytest

from roles.declaration import Declaration, DeclaredHost
from roles.fleet import Fleet, build, host_launch
from roles.launch import LaunchState
from roles.launch.host_launch import task
from tests.gguf_models import recorded

LLAMA_CPP = {"archive": "/srv/llama.tar.gz", "sha256": "a" * 64}
ENGINE_KEYS = {"chat": "c" * 32, "small": "s" * 32}


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Files with the balancer's key and with each service's engine key."""
    texts = {"balancer": "b" * 32, **ENGINE_KEYS}
    for name, text in texts.items():
        file = tmp_path / f"{name}.key"
        file.write_text(text)
        file.chmod(0o600)
    return {name: str(tmp_path / f"{name}.key") for name in texts}


def fleet(keys: dict[str, str], **first: Any) -> Fleet:
    """Two services with two engines on each of two hosts; `first` is more of the first host."""
    services = [
        {
            "name": "chat",
            "model": "Qwen/Qwen3-8B",
            "max_model_len": 4096,
            "route": {"engine_key_file": keys["chat"]},
        },
        {
            "name": "small",
            "model": json.loads(recorded("Llama-3.1-8B-Instruct").text()),
            "weights": "/srv/models/small.gguf",
            "max_model_len": 4096,
            "first_port": 9001,
            "engine": {"llama_cpp": LLAMA_CPP},
            "route": {"path_prefix": "/small", "engine_key_file": keys["small"]},
        },
    ]
    hosts = {
        "gpu-1": ("gpu_hosts", {"gpus": "2x NVIDIA L40S"} | first, "10.0.0.11"),
        "gpu-2": ("gpu_hosts", {"gpus": "2x NVIDIA L40S"}, "10.0.0.12"),
        "lb-1": ("balancers", {}, "10.0.0.10"),
        "lb-2": ("balancers", {}, "10.0.0.9"),
    }
    data = {"services": services, "balancer": {"api_key_file": keys["balancer"]}}
    return build(
        Declaration(
            "test",
            data,
            {
                name: DeclaredHost(frozenset({group, "all"}), own, address)
                for name, (group, own, address) in hosts.items()
            },
        )
    )


def test_two_services_with_two_engines_run_on_one_host(keys: dict[str, str]):
    launch = host_launch(fleet(keys), "gpu-1")
    assert [(one.name, one.port, one.gpus) for one in launch.replicas] == [
        ("chat-0", 8001, (0,)),
        ("small-0", 9001, (1,)),
    ]
    assert [one.engine for one in launch.assignments] == ["vllm", "llama_cpp"]
    programs = [one.files["start"].text for one in launch.replicas]
    assert "vllm" in programs[0] and "/llama-server" in programs[1]
    assert [one.entry["version"] for one in launch.replicas] == [
        build.version_name for build in fleet(keys).engines_on("gpu-1")
    ]


def test_each_replica_has_the_key_of_its_service_and_no_file_shows_it(keys: dict[str, str]):
    launch = host_launch(fleet(keys), "gpu-1")
    assert {one.entry["service"]: one.key for one in launch.replicas} == ENGINE_KEYS
    for replica in launch.replicas:
        assert all(replica.key not in file.text for file in replica.files.values())
        assert replica.key not in repr(replica) and replica.key not in str(replica.entry)
    assert all(key not in repr(launch) for key in ENGINE_KEYS.values())


def test_a_hosts_engines_are_reached_by_all_balancers(keys: dict[str, str]):
    launch = host_launch(fleet(keys), "gpu-2")
    assert (launch.address, launch.balancers) == ("10.0.0.12", ("10.0.0.10", "10.0.0.9"))
    assert " --host 0.0.0.0 " in launch.replicas[1].files["start"].text
    rules = launch.firewall()["/etc/llm/firewall.nft"]
    assert all(text in rules for text in ("10.0.0.9", "10.0.0.10", "8001", "9001"))


def test_another_key_concerns_the_replicas_of_its_service_alone(keys: dict[str, str]):
    before = host_launch(fleet(keys), "gpu-1").replicas
    Path(keys["small"]).write_text("t" * 32)
    after = host_launch(fleet(keys), "gpu-1").replicas
    same = [old.digest == new.digest for old, new in zip(before, after, strict=True)]
    assert same == [True, False]


def test_a_retired_host_runs_nothing(keys: dict[str, str]):
    launch = host_launch(fleet(keys, retired=True), "gpu-1")
    assert (launch.assignments, launch.replicas, launch.shared) == ((), (), {})
    sent = task(launch, LaunchState(), [], ["chat-0"], "run")
    assert (sent["replicas"], sent["planned"], sent["retire"]) == ([], {}, ["chat-0"])
    # The others run what they ran.
    assert len(host_launch(fleet(keys, retired=True), "gpu-2").replicas) == 2
