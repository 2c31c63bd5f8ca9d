"""The files of replicas: what the plan says arrives in them, quoted, and secrets in one only."""

import re
from dataclasses import replace

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from roles.engine import EngineSettings
from roles.hardware import declared_hardware
from roles.launch import HostLaunch, LaunchSettings
from roles.launch.render import (
    digests,
    environment_of,
    firewall_files,
    host_files,
    options_of,
    quoted,
    replica_files,
)
from roles.plan import HostPlan
from roles.topology import ServiceSettings, plan_host

ENGINE = EngineSettings()
LAUNCH = LaunchSettings()
KEY = "engine-key-0123456789"


def service(**more) -> ServiceSettings:
    data = {"name": "qwen", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
    return ServiceSettings.model_validate(data | more)


def plan(gpus: str = "4x NVIDIA A10G") -> HostPlan:
    return plan_host(service(), "gpu3", declared_hardware(gpus, None))


def files(engine: EngineSettings = ENGINE, key: str = KEY, **more):
    return host_files(plan(), service(**more), engine, LAUNCH, "10.0.0.1", ["10.0.0.9"], key)


def test_a_replica_gets_its_gpus_port_and_shape():
    second = plan().replicas[1]
    assert environment_of(second, ENGINE, LAUNCH)["CUDA_VISIBLE_DEVICES"] == "2,3"
    options = options_of(second, service(), LAUNCH, "10.0.0.1")
    assert options["model"] == options["served-model-name"] == "Qwen/Qwen2.5-14B-Instruct"
    assert (options["port"], options["tensor-parallel-size"]) == (8002, 2)
    assert (options["max-model-len"], options["gpu-memory-utilization"]) == (4096, 0.92)
    assert "api-key" not in options


def test_each_device_has_its_own_variable():
    rocm = EngineSettings(device="rocm")
    environment = environment_of(plan().replicas[0], rocm, LAUNCH)
    assert environment["HIP_VISIBLE_DEVICES"] == "0,1"
    assert "CUDA_VISIBLE_DEVICES" not in environment


def test_weights_and_arguments_of_the_service_win():
    options = options_of(
        plan().replicas[0],
        service(weights="/srv/w", kv_cache_memory_bytes=7, arguments={"enforce-eager": True}),
        LAUNCH,
        "fd00::1",
    )
    assert options["model"] == "/srv/w"
    assert (options["kv-cache-memory-bytes"], options["enforce-eager"]) == (7, True)
    assert options["host"] == "::"


def test_the_key_is_in_one_private_file_only():
    holding = [file for file in files() if KEY in file.content]
    assert [(file.path, file.mode) for file in holding] == [("/etc/llm/secrets/engine.env", "600")]
    assert KEY not in repr(files())


def test_configuration_is_read_back_as_it_was_meant():
    config = replica_files(
        plan().replicas[0],
        service(arguments={"x": "a: #b '\"", "y": "on"}),
        ENGINE,
        LAUNCH,
        "1.1.1.1",
    )[1]
    options = yaml.safe_load(config.content)
    assert (options["x"], options["y"]) == ("a: #b '\"", "on")


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=40))
@example("a $HOME `id` \"q\" \\ 'x' %i")
def test_environment_values_are_read_back_as_they_were(text: str):
    # systemd unquotes a double-quoted value as a shell does: \\ before " \\ $ ` is taken away.
    assert re.fullmatch(r'"(?:[^"\\$`]|\\["\\$`])*"', quoted(text))
    assert re.sub(r'\\(["\\$`])', r"\1", quoted(text)[1:-1]) == text


def test_only_balancers_and_friends_reach_the_ports():
    launch = LaunchSettings.model_validate({"allow_from": ["192.0.2.0/24", "fd00::/8"]})
    rules = firewall_files(launch, ["10.0.0.9"], [8002, 8001])[0].content
    assert "ip saddr { 10.0.0.9/32, 192.0.2.0/24 } tcp dport { 8001, 8002 } accept" in rules
    assert "ip6 saddr { fd00::/8 } tcp dport { 8001, 8002 } accept" in rules
    assert "\t\ttcp dport { 8001, 8002 } drop\n" in rules
    # What the processes of two replicas use among themselves is for nobody else.
    assert "\t\ttcp dport 29000-29199 drop\n" in rules


def test_replicas_of_a_host_share_no_internal_port():
    first, second = plan().replicas
    ports = [environment_of(one, ENGINE, LAUNCH)["VLLM_PORT"] for one in (first, second)]
    assert ports == ["29000", "29100"]


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "VLLM_API_KEY", "HF_TOKEN", "PATH"])
def test_what_the_plan_sets_cannot_be_set_beside_it(name: str):
    with pytest.raises(ValueError, match=f"{name} follows from"):
        EngineSettings.model_validate({"environment": {name: "x"}})


def test_engines_never_run_as_root():
    with pytest.raises(ValueError, match="must not run as root"):
        LaunchSettings(user="root")


@pytest.mark.parametrize(
    ("change", "restarted"),
    [
        ({}, []),
        ({"key": "another-key-0123456789"}, ["qwen-0", "qwen-1"]),
        ({"arguments": {"enforce-eager": True}}, ["qwen-0", "qwen-1"]),
        ({"engine": EngineSettings(requirement="vllm==0.34.0")}, ["qwen-0", "qwen-1"]),
        ({"engine": EngineSettings(keep=3)}, []),
    ],
)
def test_a_replica_restarts_only_for_what_it_runs_from(change: dict, restarted: list[str]):
    before = digests(plan(), files(), ENGINE)
    after = digests(plan(), files(**change), change.get("engine", ENGINE))
    assert [name for name in after if after[name] != before[name]] == restarted


def test_without_p2p_nccl_and_the_engine_are_both_told():
    first, second = plan().replicas
    off = replace(first, p2p=False)
    assert environment_of(off, ENGINE, LAUNCH)["NCCL_P2P_DISABLE"] == "1"
    assert options_of(off, service(), LAUNCH, "10.0.0.1")["disable-custom-all-reduce"] is True
    assert "NCCL_P2P_DISABLE" not in environment_of(second, ENGINE, LAUNCH)
    assert "disable-custom-all-reduce" not in options_of(second, service(), LAUNCH, "10.0.0.1")


def test_a_launch_goes_by_the_plan_that_it_has_when_it_is_asked():
    launch = HostLaunch(plan(), LAUNCH, service(), ENGINE, {}, "10.0.0.1", {"lb": "10.0.0.9"}, KEY)
    before = launch.files
    assert before == files()
    digests_before = launch.digests(before)
    first, second = launch.plan.replicas
    launch.plan = replace(launch.plan, replicas=(replace(first, p2p=False), second))
    now = launch.digests(launch.files)
    # Only the replica that does without P2P restarts.
    assert now[first.name] != digests_before[first.name]
    assert now[second.name] == digests_before[second.name]
