"""The folders of replicas: what the plan says arrives in them, quoted, and secrets in private
files only."""

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from roles.declaration import HostSettings
from roles.engine import ENGINE_SETTINGS, Build, VllmSettings
from roles.host.templates import quoted
from roles.interconnect import InterconnectSettings
from roles.interconnect.program import program
from roles.launch import HostLaunch, LaunchSettings, LaunchState
from roles.launch.fingerprints import differing
from roles.launch.render import ReplicaFiles, firewall_files
from roles.models import catalog_config
from tests.unit.launch.assignments import KEY, launch, plan

LAUNCH = LaunchSettings()


def options(files: ReplicaFiles) -> dict:
    return yaml.safe_load(files.files["options.yaml"].text)


def environment(files: ReplicaFiles) -> dict[str, str]:
    lines = files.files["environment"].text.splitlines()[1:]
    return {name: value.strip('"') for name, value in (line.split("=", 1) for line in lines)}


def test_a_replica_gets_its_gpus_port_and_shape():
    second = launch().replicas[1]
    assert environment(second)["CUDA_VISIBLE_DEVICES"] == "2,3"
    found = options(second)
    assert found["model"] == found["served-model-name"] == "Qwen/Qwen2.5-14B-Instruct"
    assert (found["port"], found["tensor-parallel-size"]) == (8002, 2)
    assert (found["max-model-len"], found["gpu-memory-utilization"]) == (4096, 0.92)


def test_the_settings_of_a_replica_are_told_apart_by_name():
    def settings(**more: Any) -> dict[str, str]:
        return launch(**more).replicas[0].entry["settings"]

    changed = {"arguments": {"max-num-seqs": 8, "override-generation-config": "{}"}}
    assert differing(settings(), settings(**changed)) == [
        # It follows from the next.
        "max-num-queued-reqs",
        "max-num-seqs",
        "override-generation-config",
    ]
    other = {"arguments": {"max-num-seqs": 9, "override-generation-config": "{}"}}
    assert differing(settings(**changed), settings(**other)) == ["max-num-seqs"]
    secret = settings(build=VllmSettings(environment={"A_TOKEN": "x", "B": "y"}))
    assert differing(settings(), secret) == ["B"] and max(map(len, secret.values())) == 4


def test_each_device_has_its_own_variable():
    first = launch(VllmSettings(device="rocm")).replicas[0]
    assert environment(first)["HIP_VISIBLE_DEVICES"] == "0,1"
    assert "CUDA_VISIBLE_DEVICES" not in environment(first)
    assert "SupplementaryGroups=render video" in first.files["unit.conf"].text


def test_weights_and_arguments_of_the_service_win():
    first = launch(
        weights="/srv/w",
        kv_cache_memory_bytes=2**20,
        arguments={"enforce-eager": True},
        address="::1",
    ).replicas[0]
    found = options(first)
    assert found["model"] == "/srv/w"
    assert (found["kv-cache-memory-bytes"], found["enforce-eager"]) == (2**20, True)
    assert found["host"] == "::"


def test_the_key_is_in_no_text_and_goes_into_private_files_alone():
    wanted = launch()
    for replica in wanted.replicas:
        assert all(KEY not in file.text for file in replica.files.values())
        takes = {name: file for name, file in replica.files.items() if file.key_lines}
        assert {name: file.mode for name, file in takes.items()} == {
            "keys": "600",
            "options.yaml": "600",
        }
    assert KEY not in repr(wanted)


def test_a_version_that_logs_its_keys_gets_one_in_its_environment():
    first = launch(VllmSettings(requirement="vllm==0.31.0")).replicas[0]
    assert first.files["secrets"].key_lines == ('VLLM_API_KEY="{}"',)
    assert (first.files["secrets"].keys, first.files["secrets"].mode) == (1, "600")
    assert "api-key" not in first.files["options.yaml"].text


def test_configuration_is_read_back_as_it_was_meant():
    found = options(launch(arguments={"x": "a: #b '\"", "y": "on"}).replicas[0])
    assert (found["x"], found["y"]) == ("a: #b '\"", "on")


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=40))
@example("a $HOME `id` \"q\" \\ 'x' %i")
def test_environment_values_are_read_back_as_they_were(text: str):
    # systemd unquotes a double-quoted value as a shell does: \\ before " \\ $ ` is taken away.
    assert re.fullmatch(r'"(?:[^"\\$`]|\\["\\$`])*"', quoted(text))
    assert re.sub(r'\\(["\\$`])', r"\1", quoted(text)[1:-1]) == text


def test_only_balancers_and_friends_reach_the_ports():
    settings = LaunchSettings.model_validate({"allow_from": ["192.0.2.0/24", "fd00::/8"]})
    rules = firewall_files(settings, ["10.0.0.9"], [8002, 8001], [0, 1])["/etc/llm/firewall.nft"]
    assert "ip saddr { 10.0.0.9/32, 192.0.2.0/24 } tcp dport { 8001, 8002 } accept" in rules
    assert "ip6 saddr { fd00::/8 } tcp dport { 8001, 8002 } accept" in rules
    assert "\t\ttcp dport { 8001, 8002 } drop\n" in rules
    # What the processes of replicas use among themselves is for nobody else.
    assert "\t\ttcp dport 29000-29199 drop\n" in rules


@pytest.mark.parametrize("zone", ["fe80::1%eth0", "fe80::1%; accept }", "fe80::1%x\n} drop/128"])
def test_a_zone_of_ipv6_cannot_write_rules(zone: str):
    with pytest.raises(ValueError, match="is no network"):
        LaunchSettings.model_validate({"allow_from": [zone]})
    with pytest.raises(ValueError, match=r"zone|no IP address"):
        HostSettings.model_validate({"address": zone.removesuffix("/128")})


def test_ports_of_an_earlier_plan_stay_guarded_while_replicas_move():
    state = LaunchState(manifest={"old-0": {"port": 9000, "gpus": [7]}})
    rules = launch().firewall(state)["/etc/llm/firewall.nft"]
    assert "tcp dport { 8001, 8002, 9000 } drop" in rules
    assert "\t\ttcp dport 29000-29799 drop\n" in rules


def test_replicas_of_a_host_share_no_internal_port():
    ports = [environment(one)["VLLM_PORT"] for one in launch().replicas]
    assert ports == ["29000", "29200"]
    rules = launch().firewall()["/etc/llm/firewall.nft"]
    assert "tcp dport 29000-29399 drop" in rules


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "VLLM_API_KEY", "HF_TOKEN", "PATH"])
def test_what_the_plan_sets_cannot_be_set_beside_it(name: str):
    with pytest.raises(ValueError, match=f"{name} follows from"):
        VllmSettings.model_validate({"environment": {name: "x"}})


@pytest.mark.parametrize(
    "name",
    ["WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "S3_TOKEN", "DB_PASSWORD", "X_SECRETS", "APIKEY"],
)
@pytest.mark.parametrize("kind", ["vllm", "llama_cpp"])
def test_a_variable_that_looks_like_a_secret_is_in_a_file_of_roots(kind: str, name: str):
    secret = 'p4ss "$(id)" \\ %i ;#'
    build = ENGINE_SETTINGS[kind].model_validate({"environment": {name: secret, "PLAIN": "yes"}})
    for replica in launch(build).replicas:
        modes = {file.mode for file in replica.files.values() if "p4ss" in file.text}
        assert modes == {"600"}
        assert f"{name}={quoted(secret)}\n" in replica.files["secrets"].text
        assert environment(replica)["PLAIN"] == "yes"
        assert "p4ss" not in str(replica.entry)
    assert "p4ss" not in program((), (), build, InterconnectSettings(), {})


def test_engines_never_run_as_root():
    with pytest.raises(ValueError, match="must not run as root"):
        LaunchSettings(user="root")


@pytest.mark.parametrize(
    ("change", "restarted"),
    [
        ({}, []),
        ({"key": "another-key-0123456789"}, ["qwen-0", "qwen-1"]),
        ({"arguments": {"enforce-eager": True}}, ["qwen-0", "qwen-1"]),
        ({"build": VllmSettings(requirement="vllm==0.34.0")}, ["qwen-0", "qwen-1"]),
        ({"build": VllmSettings(keep=3)}, []),
        ({"settings": LaunchSettings(user="other")}, ["qwen-0", "qwen-1"]),
        ({"settings": LaunchSettings(start_timeout_s=7)}, []),
    ],
)
def test_a_replica_restarts_only_for_what_it_runs_from(change: dict, restarted: list[str]):
    before, after = digests(launch()), digests(launch(**change))
    assert [name for name in after if after[name] != before[name]] == restarted


def test_without_p2p_nccl_and_the_engine_are_both_told():
    first, second = plan().replicas
    off, on = launch(
        host_plan=replace(plan(), replicas=(replace(first, p2p=False), second))
    ).replicas
    assert environment(off)["NCCL_P2P_DISABLE"] == "1"
    assert options(off)["disable-custom-all-reduce"] is True
    assert "NCCL_P2P_DISABLE" not in environment(on)
    assert "disable-custom-all-reduce" not in options(on)
    # Only the replica that does without P2P restarts.
    before = digests(launch())
    assert off.digest != before["qwen-0"]
    assert on.digest == before["qwen-1"]


def digests(wanted: HostLaunch) -> dict[str, str]:
    return {one.name: one.digest for one in wanted.replicas}


COMMIT, LATER = "0123456789abcdef0123456789abcdef01234567", "9" * 40
PINNED = {"revision": COMMIT, "tokenizer-revision": COMMIT}
HUB = VllmSettings()
MODELSCOPE = VllmSettings(environment={"VLLM_USE_MODELSCOPE": "1"})


def recorded_at(commit: str | None) -> dict[str, Any]:
    """A model as it is recorded of the hub."""
    name = "Qwen/Qwen2.5-14B-Instruct"
    known = {"id": name, "config": catalog_config(name), "weights_bytes": 29_540_067_328}
    return known | ({"revision": commit} if commit else {})


@pytest.mark.parametrize(
    ("commit", "service", "build", "expected"),
    [
        (COMMIT, {}, HUB, PINNED),
        # All digits: it must be read as text.
        (LATER, {}, HUB, {"revision": LATER, "tokenizer-revision": LATER}),
        (COMMIT, {"weights": "Qwen/Qwen2.5-14B-Instruct"}, HUB, PINNED),
        (None, {}, HUB, {}),
        (COMMIT, {"weights": "/srv/models/qwen"}, HUB, {}),
        (COMMIT, {"weights": "other/copy"}, HUB, {}),
        (COMMIT, {"arguments": {"revision": "v2"}}, HUB, {"revision": "v2"}),
        (COMMIT, {"arguments": {"tokenizer": "other/t"}}, HUB, {"revision": COMMIT}),
        (COMMIT, {"arguments": {"hf-config-path": "other/c"}}, HUB, {}),
        (COMMIT, {}, MODELSCOPE, {}),
    ],
)
def test_the_recorded_revision_reaches_the_engine(
    commit: str | None, service: dict[str, Any], build: Build, expected: dict[str, str]
):
    (found, *_) = launch(build, model=recorded_at(commit), **service).replicas
    printed = options(found)
    assert {name: printed[name] for name in printed if name.endswith("revision")} == expected


def test_another_revision_restarts_the_services_replicas_alone():
    def launched(commit: str) -> dict[str, str]:
        return digests(launch(model=recorded_at(commit)))

    before, after = launched(COMMIT), launched(LATER)
    assert [name for name in after if after[name] != before[name]] == ["qwen-0", "qwen-1"]
    assert digests(launch()) == digests(launch(model=recorded_at(None)))


def test_the_manifest_says_what_runs_and_holds_no_secret():
    entry = launch().replicas[1].entry
    assert (entry["name"], entry["service"], entry["engine"]) == ("qwen-1", "qwen", "vllm")
    assert (entry["port"], entry["gpus"], entry["members"]) == (8002, [2, 3], {"gpu3": [2, 3]})
    assert KEY not in str(entry)


def test_the_manifest_says_what_a_replica_is_asked_for():
    (embeds, *_), (chats, *_) = launch(task="embed").replicas, launch().replicas
    assert (embeds.entry["task"], chats.entry.get("task")) == ("embed", None)


def test_the_engine_is_started_from_its_own_version():
    build: Build = VllmSettings()
    start = launch(build).replicas[0].files["start"].text
    assert f"exec /opt/llm/engines/{build.version_name}/bin/vllm serve --config" in start
