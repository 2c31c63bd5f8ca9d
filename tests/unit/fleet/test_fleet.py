"""What an inventory declares: good ones become a fleet, bad ones are refused with path and cure."""

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roles.declaration import Declaration, DeclarationError, DeclaredHost
from roles.engine import VllmSettings
from roles.fleet import Fleet, build, with_hardware
from roles.fleet.launching import served
from roles.hardware import LinkVerdict
from roles.plan import HostPlan
from tests.gguf_models import gguf_model

HOSTS: dict[str, Any] = {
    "gpu-1": ("gpu_hosts", {"gpus": "2x NVIDIA L40S"}, "10.0.0.11"),
    "gpu-2": ("gpu_hosts", {"gpus": "4x NVIDIA A10G"}, "10.0.0.12"),
    "lb-1": ("balancers", {}, "10.0.0.10"),
}


def vllm(settings: dict[str, Any]) -> dict[str, Any]:
    """What the fleet declares of vLLM."""
    return {"engines": {"vllm": settings}}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "api.key"
    file.write_text("k" * 32 + "\n")
    file.chmod(0o600)
    return file


def declared(key: Path, hosts: dict[str, Any] = HOSTS, **fleet: Any) -> Declaration:
    service = {"name": "qwen", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
    balancer = fleet.pop("balancer", {})
    data: dict[str, Any] = {"services": [service | fleet.pop("service", {})]}
    if balancer is not None:
        data["balancer"] = {"api_key_file": str(key)} | balancer
    return Declaration(
        "test",
        data | fleet,
        {
            name: DeclaredHost(frozenset({group, "all"}), settings, reached_by)
            for name, (group, settings, reached_by) in hosts.items()
        },
    )


def problems(declaration: Declaration) -> list[str]:
    with pytest.raises(DeclarationError) as caught:
        build(declaration)
    return caught.value.problems


def test_a_good_declaration_becomes_a_planned_fleet(key: Path):
    fleet = build(declared(key))
    assert [replica.host for replica in fleet.plans[0].replicas] == ["gpu-1"] * 2 + ["gpu-2"] * 2
    assert fleet.addresses == {"gpu-1": "10.0.0.11", "gpu-2": "10.0.0.12", "lb-1": "10.0.0.10"}
    assert [host.name for host in fleet.with_role("balancers")] == ["lb-1"]


def test_a_host_can_differ_in_its_engine(key: Path):
    hosts = HOSTS | {
        "gpu-1": (
            "gpu_hosts",
            {
                "gpus": "2x NVIDIA L40S",
                "engines": {"vllm": {"environment": {"NCCL_P2P_DISABLE": "1"}}},
            },
            "10.0.0.11",
        )
    }
    fleet = build(declared(key, hosts, engines={"vllm": {"environment": {"A": "1"}}}))
    assert fleet.engine_of("gpu-1", "qwen", "vllm").environment == {
        "A": "1",
        "NCCL_P2P_DISABLE": "1",
    }
    assert fleet.engine_of("gpu-2", "qwen", "vllm").environment == {"A": "1"}


def test_a_service_has_the_last_word_on_its_engine(key: Path):
    own = {"gpus": "2x NVIDIA L40S", "engines": {"vllm": {"environment": {"A": "2", "B": "2"}}}}
    hosts = HOSTS | {"gpu-1": ("gpu_hosts", own, "10.0.0.11")}
    service = {"engine": {"vllm": {"environment": {"B": "3"}}}}
    fleet = build(declared(key, hosts, service=service, **vllm({"environment": {"A": "1"}})))
    assert fleet.engine_of("gpu-1", "qwen", "vllm").environment == {"A": "2", "B": "3"}
    assert fleet.engine_of("gpu-2", "qwen", "vllm").environment == {"A": "1", "B": "3"}
    assert len(fleet.engines_on("gpu-1")) == 1


@pytest.mark.parametrize(
    ("version", "option", "refused"),
    [
        # New in 0.33, which gpu-2 runs.
        ("0.32.0", "watchdog-config", "vLLM 0.32 does not know `watchdog-config`"),
        ("0.33.1", "enforce-eagr", "did you mean enforce-eager?"),
        ("0.33.1", "zzzzqqqq", "leave it out"),
        # Nobody read the options of this version; gpu-2 refuses what no version has.
        ("0.31.0", "watchdog-config", ""),
        ("0.33.1", "watchdog-config", ""),
    ],
)
def test_options_are_judged_by_the_version_of_each_host(
    key: Path, version: str, option: str, refused: str
):
    own_version = {"vllm": {"requirement": f"vllm=={version}", "allow_unhashed": True}}
    group, own, address = HOSTS["gpu-1"]
    hosts = HOSTS | {"gpu-1": (group, own | {"engines": own_version}, address)}
    fleet = declared(key, hosts, service={"arguments": {option: "{}"}})
    if not refused:
        build(fleet)
        return
    found = problems(fleet)
    assert all(one.startswith("services[0].arguments: ") for one in found)
    assert any(refused in one for one in found), found


def test_an_option_that_no_version_is_known_to_have_is_warned_of_where_its_own_is_not_listed(
    key: Path,
):
    old = {"requirement": "vllm==0.31.0", "allow_unhashed": True}
    service = {"arguments": {"enforce-eagr": True}}
    plan = build(declared(key, service=service, **vllm(old))).plans[0]
    for host in plan.hosts:
        assert any("arguments: " in one and "enforce-eager?" in one for one in host.warnings)


def test_services_of_one_host_may_run_two_builds(key: Path):
    old = {
        "engine": {"vllm": {"requirement": "vllm==0.19.1", "allow_unhashed": True}},
        "first_port": 9001,
    }
    fleet = build(several(key, {}, old))
    engines = fleet.engines_on("gpu-1")
    found = [one.requirement for one in engines if isinstance(one, VllmSettings)]
    assert found == ["vllm==0.33.0", "vllm==0.19.1"]
    # The newer one needs the newer driver.
    assert fleet.needs_on("gpu-1").driver_branch == 580


def test_a_single_endpoint_needs_no_balancer(key: Path):
    hosts = {name: host for name, host in HOSTS.items() if name != "lb-1"}
    service = {"single_endpoint": True, "route": {"api_key_file": str(key)}}
    fleet = build(declared(key, hosts, service=service, balancer=None))
    assert fleet.settings.balancer is None
    assert fleet.settings.keys(fleet.settings.services[0]).engine == "k" * 32
    without = declared(key, hosts, service={"single_endpoint": True}, balancer=None)
    assert problems(without) == [
        "services[0].route.api_key_file: is missing; set it where there is no balancer that has one"
    ]


def test_a_service_has_its_own_keys_or_the_balancers(key: Path, tmp_path: Path):
    other = tmp_path / "engine.key"
    other.write_text("e" * 32)
    other.chmod(0o600)
    services = (
        {"route": {"engine_key_file": str(other)}},
        {"first_port": 9001, "route": {"path_prefix": "/b", "api_key_file": str(other)}},
    )
    made = tmp_path / "test/engines.key"
    made.parent.mkdir(mode=0o700)
    made.touch(mode=0o600)
    made.write_text("m" * 32)
    settings = build(several(key, *services)).settings
    found = [settings.keys(one) for one in settings.services]
    assert [(one.client, one.engine) for one in found] == [
        ("k" * 32, "e" * 32),
        ("e" * 32, "m" * 32),
    ]


def test_a_plan_and_a_check_make_no_key(key: Path, tmp_path: Path):
    for secrets in (True, False):
        fleet = build(declared(key), secrets)
        assert fleet.settings.balancer is not None
        assert fleet.settings.balancer.engine_key_file == tmp_path / "test/engines.key"
    assert [file.name for file in tmp_path.iterdir()] == ["api.key"]


def test_a_made_key_that_others_may_read_is_refused(key: Path, tmp_path: Path):
    made = tmp_path / "test/engines.key"
    made.parent.mkdir()
    made.write_text("e" * 32)
    made.chmod(0o640)
    (problem,) = problems(declared(key))
    assert problem.startswith("balancer.engine_key_file: others may read")
    assert build(declared(key), secrets=False).plans


def test_a_retired_host_is_not_planned_and_stays_in_the_fleet(key: Path):
    retired = ("gpu_hosts", {"retired": True}, "10.0.0.12")
    fleet = build(declared(key, HOSTS | {"gpu-2": retired}))
    assert {replica.host for replica in fleet.plans[0].replicas} == {"gpu-1"}
    assert [plan.replicas for _, plan in fleet.on("gpu-2")] == [()]
    assert [host.name for host in fleet.with_role("gpu_hosts")] == ["gpu-1", "gpu-2"]


def test_a_card_that_only_an_older_engine_runs_on_is_planned_for_it(key: Path):
    hosts = {
        "gpu-1": ("gpu_hosts", {"gpus": "2x Tesla V100-SXM2-32GB"}, "10.0.0.11"),
        "lb-1": ("balancers", {}, "10.0.0.10"),
    }
    (problem,) = problems(declared(key, hosts))
    assert "needs 7.5" in problem and "vLLM 0.32 as +cu129, or 0.19" in problem
    fleet = build(
        declared(
            key, hosts, engines={"vllm": {"requirement": "vllm==0.19.1", "allow_unhashed": True}}
        )
    )
    assert fleet.plans[0].replicas


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        ({"service": {"max_model_len": -1}}, "services[0].max_model_len: "),
        ({"service": {"max_model_len": 10**6}}, "set at most 32768"),
        (
            {"service": {"max_len": 4}},
            "services[0].max_len: unknown key; did you mean max_model_len?",
        ),
        ({"service": {"model": "Qwen/Qwen2.5-14B-Instrukt"}}, "Qwen/Qwen2.5-14B-Instruct"),
        ({"service": {"name": "a b"}}, "services[0].name: 'a b' has characters"),
        ({"service": {"name": "a\n"}}, "services[0].name: 'a\\n' has characters"),
        ({"service": {"name": "a;reboot"}}, "services[0].name: "),
        ({"service": {"name": "a'b"}}, "services[0].name: "),
        ({"service": {"weights": "/srv/a b"}}, "services[0].weights: "),
        ({"service": {"weights": "/srv/$(id)"}}, "services[0].weights: "),
        ({"service": {"arguments": {"port": 1}}}, "services[0].arguments: `port` follows"),
        ({"service": {"arguments": {"Bad Key": 1}}}, "services[0].arguments: 'Bad Key'"),
        ({"service": {"arguments": {"dtype": "a\nb"}}}, "services[0].arguments: dtype: control"),
        ({"services": []}, "services: "),
        ({"engine": {"device": "cpu"}}, "engine: move it under engines.vllm"),
        ({"engines": {"vlm": {}}}, "engines.vlm: unknown key; did you mean vllm?"),
        ({"service": {"engine": "tgi"}}, "services[0].engine: 'tgi' is no kind of engine"),
        (
            {"service": {"engine": {"vllm": {"device": "tpu"}}}},
            "services[0].engine.vllm.device: must be 'cuda', 'rocm' or",
        ),
        ({"service": {"engine": {"auto": {"device": "cpu"}}}}, "services[0].engine: name one of"),
        ({"service": {"engine_settings": {}}}, "services[0].engine_settings: unknown key"),
        (
            {"service": {"route": {"api_key_file": "/nowhere.key"}}},
            "services[0].route.api_key_file: ",
        ),
        ({"balancer": None}, "balancer: "),
        ({"enginee": {}}, "enginee: unknown key; did you mean engines?"),
        (
            {"engines": {"vllm": {"requirement": "vllm"}}},
            "engines.vllm.requirement: 'vllm' has characters",
        ),
        (vllm({"requirement": "vllm==1; curl x"}), "engines.vllm.requirement: "),
        (
            {"engines": {"vllm": {"lock": "/nowhere/lock.txt"}}},
            "engines.vllm.lock: /nowhere/lock.txt is not there",
        ),
        (
            vllm({"index_url": "https://u:p@host/simple"}),
            "engines.vllm.index_url: holds credentials",
        ),
        (
            {"engines": {"vllm": {"environment": {"A": "x\ny"}}}},
            "engines.vllm.environment: A: control",
        ),
        (vllm({"packages": ["a; id"]}), "engines.vllm.packages[0]: "),
        (vllm({"uv": "uv==1; id"}), "engines.vllm.uv: "),
        (vllm({"python": "python3; id"}), "engines.vllm.python: "),
        (vllm({"index_url": "https://h/$(id)"}), "engines.vllm.index_url: "),
        (vllm({"wheelhouse": "/srv/a b"}), "engines.vllm.wheelhouse: "),
        (vllm({"environment": {"A B": "x"}}), "engines.vllm.environment"),
        (vllm({"environment": {"A;id": "x"}}), "engines.vllm.environment"),
        (
            vllm({"environment": {"HF_ENDPOINT": 'https://h"\\noutput=x'}}),
            "engines.vllm.environment: HF_ENDPOINT: 'https",
        ),
        ({"driver": {"mirror": "https://m/x y"}}, "driver.mirror: "),
        ({"driver": {"mirror": "https://m/$releasever"}}, "driver.mirror: "),
        ({"launch": {"allow_from": ["fe80::1%eth0; drop"]}}, "launch.allow_from"),
        ({"service": {"route": {"path_prefix": "/a;b"}}}, "services[0].route.path_prefix: "),
        ({"service": {"route": {"server_name": "a b;"}}}, "services[0].route.server_name: "),
        ({"service": {"arguments": {"x; id": 1}}}, "services[0].arguments: "),
        (
            vllm({"requirement": "vllm==0.32.0"}),
            "engines.vllm.lock: is missing; make it: python -m roles.engine lock vllm==0.32.0 ",
        ),
        (vllm({"uv": "uv==0.13.7"}), "engines.vllm.lock: is missing"),
        (
            vllm({"index_url": "http://pypi.example.com/simple"}),
            "engines.vllm.index_url: http://pypi.example.com/simple can be changed on its way; use "
            "https, or name pypi.example.com in allow_http_from",
        ),
        (
            vllm({"wheelhouse": "http://h:8/w", "allow_http_from": ["other"]}),
            "engines.vllm.wheelhouse: http://h:8/w can be changed on its way",
        ),
        ({"balancer": {"api_key_file": "/nowhere.key"}}, "balancer.api_key_file: "),
        ({"balancer": {"template": "/nowhere.j2"}}, "balancer.template: "),
        ({"balancer": {"server_name": "a; b"}}, "balancer.server_name: "),
        ({"launch": {"user": "root; id"}}, "launch.user: "),
        ({"validation": {"load_s": -1}}, "validation.load_s: "),
    ],
)
def test_bad_settings_are_refused(key: Path, fleet: dict, expected: str):
    found = problems(declared(key, **fleet))
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ({"x": ("others", {}, "10.0.0.9")}, "hosts[x]: is in no role; put it into gpu_hosts or"),
        (
            {"x y": ("gpu_hosts", {"gpus": "1x NVIDIA L40S"}, "10.0.0.9")},
            "hosts['x y']: use letters",
        ),
        ({"x\n": ("balancers", {}, "10.0.0.9")}, "hosts['x\\n']: use letters"),
        ({"x": ("gpu_hosts", {}, "10.0.0.9")}, "hosts[x].gpus: are neither declared nor recorded"),
        ({"x": ("gpu_hosts", {"gpus": "2x NVIDIA L41S"}, "10.0.0.9")}, "hosts[x].gpus: "),
        ({"x": ("gpu_hosts", {"gpu": "1x NVIDIA L40S"}, "10.0.0.9")}, "did you mean gpus?"),
        ({"x": ("balancers", {"gpus": "1x NVIDIA L40S"}, "10.0.0.9")}, "not in gpu_hosts"),
        (
            {"x": ("gpu_hosts", {"gpus": "2x AMD Instinct MI300X"}, "10.0.0.9")},
            "hosts[x].engines.vllm.device: cuda does not run on AMD Instinct MI300X",
        ),
        (
            {
                "x": (
                    "gpu_hosts",
                    {"gpus": "1x AMD Instinct MI300X", "tuning": {"power_limit_w": 300}},
                    "10.0.0.9",
                )
            },
            "hosts[x].tuning.power_limit_w: is set by nvidia-smi, and the GPUs are AMD's",
        ),
        ({"x": ("balancers", {}, "lb.example.com")}, "hosts[x].address: 'lb.example.com' is no IP"),
        ({"x": ("balancers", {"address": "10.0.0.1;"}, "x")}, "hosts[x].address: "),
        (
            {"x": ("gpu_hosts", {"gpus": "2x NVIDIA L40S", "ports": [8001, 8001]}, "10.0.0.9")},
            "hosts[x].ports: qwen-1 and qwen-0 would both listen on 8001",
        ),
        (
            {"x": ("gpu_hosts", {"gpus": "2x NVIDIA L40S", "ports": [8001]}, "10.0.0.9")},
            "hosts[x].ports: 1 ports for 2 replicas",
        ),
        (
            {"x": ("gpu_hosts", {"gpus": "1x NVIDIA L40S", "ports": [70000]}, "10.0.0.9")},
            "70000 is outside 1024-65535",
        ),
        (
            {"x": ("gpu_hosts", {"gpus": "1x NVIDIA L40S"}, "10.0.0.11")},
            "hosts[x].address: 10.0.0.11 is also that of gpu-1",
        ),
        (
            {
                "x": (
                    "gpu_hosts",
                    {"gpus": "1x NVIDIA L40S", "engines": {"vllm": {"device": "tpu"}}},
                    "10.0.0.9",
                )
            },
            "hosts[x].engines.vllm.device: ",
        ),
        (
            {"x": ("gpu_hosts", {"gpus": "1x NVIDIA L40S", "engine": {}}, "10.0.0.9")},
            "hosts[x].engine: move it under engines.vllm",
        ),
        (
            {"x": ("gpu_hosts", {"gpus": "1x NVIDIA L40S", "engines": {"x": {}}}, "10.0.0.9")},
            "hosts[x].engines: 'x' is no kind of engine",
        ),
    ],
)
def test_bad_hosts_are_refused(key: Path, hosts: dict, expected: str):
    found = problems(declared(key, HOSTS | hosts))
    assert any(expected in problem for problem in found), found


def test_a_model_that_fits_nowhere_is_refused(key: Path):
    small = {"gpu-1": ("gpu_hosts", {"gpus": "1x NVIDIA A10G"}, "10.0.0.11"), "lb-1": HOSTS["lb-1"]}
    (problem,) = problems(declared(key, small))
    assert problem.startswith("services[0].model: Qwen/Qwen2.5-14B-Instruct fits no host: ")
    assert '\n    would fit with: "gpus": "2x NVIDIA A10G",  # ' in problem


def test_a_refusal_names_every_kind_of_card_and_the_split_over_them(key: Path):
    cards = "1x NVIDIA GeForce RTX 4090 + 1x NVIDIA GeForce RTX 3080 10GB"
    mixed = {"gpu-1": ("gpu_hosts", {"gpus": cards}, "10.0.0.11"), "lb-1": HOSTS["lb-1"]}
    (problem,) = problems(declared(key, mixed, service={"max_model_len": 1280}))
    for card in ("1x NVIDIA GeForce RTX 4090", "1x NVIDIA GeForce RTX 3080"):
        assert f"does not fit {card}" in problem
    assert '"engine": "llama_cpp",  # with a GGUF file' in problem
    assert "--tensor-split" in problem


def test_too_many_requests_at_once_are_one_fault_with_how_many_would_fit(key: Path):
    """What speaks against clusters is no fault of its own, least of all of one host alone."""
    gpus = ("2x NVIDIA L40S", "2x NVIDIA RTX 4090", "1x NVIDIA L40S")
    hosts = {f"gpu-{n}": ("gpu_hosts", {"gpus": one}, f"10.0.0.2{n}") for n, one in enumerate(gpus)}
    hosts["lb-1"] = HOSTS["lb-1"]
    (problem,) = problems(declared(key, hosts, service={"min_concurrency": 500}))
    assert "cluster" not in problem
    lines = re.findall(r"would fit with: (.*)", problem)
    settings = [ast.literal_eval(f"{{{line}\n}}") for line in lines]
    pasted = [one for one in settings if "gpus" not in one]
    assert pasted
    for service in pasted:
        fleet = build(declared(key, hosts, service={"min_concurrency": 500, **service}))
        assert fleet.plans[0].replicas


def test_balancer_and_engine_of_one_host_need_two_ports(key: Path):
    both = Declaration(
        "test",
        declared(key, balancer={"port": 8001}).fleet,
        {
            "@local": DeclaredHost(
                frozenset({"gpu_hosts", "balancers"}), {"gpus": "1x NVIDIA L40S"}, "@local"
            )
        },
    )
    (problem,) = problems(both)
    assert "qwen-0 and the balancer would both listen on 8001" in problem


@pytest.mark.parametrize(
    ("port", "problem"),
    [
        (8001, "hosts[gpu-1].ports: qwen-0 and the watchdog would both listen on 8001"),
        (29050, "watchdog.port: 29050 is among the replicas' internal ports"),
    ],
)
def test_the_agent_port_is_its_own(key: Path, port: int, problem: str):
    assert any(problem in one for one in problems(declared(key, watchdog={"port": port})))


def test_a_fleet_needs_both_roles(key: Path):
    without = {name: host for name, host in HOSTS.items() if host[0] == "gpu_hosts"}
    assert problems(declared(key, without)) == ["balancers: no host is in this group; add one"]


def test_every_problem_is_named_at_once(key: Path):
    found = problems(declared(key, HOSTS | {"x": ("others", {}, "no ip")}, enginee={}))
    assert [problem.split(":")[0] for problem in found] == [
        "enginee",
        "hosts[x]",
        "hosts[x].address",
    ]


def several(key: Path, *more: dict[str, Any], **hosts: Any) -> Declaration:
    """Services with a route each: the first has the endpoint's own."""
    base = {"model": "Qwen/Qwen3-8B", "max_model_len": 4096}
    services = [
        base
        | {"name": f"s{number}", "route": {"path_prefix": f"/s{number}" if number else "/"}}
        | own
        for number, own in enumerate(more)
    ]
    return declared(key, HOSTS | hosts, services=services)


def test_several_services_share_the_hosts(key: Path):
    fleet = build(several(key, {}, {"first_port": 9001}))
    placed = {plan.service: [(one.host, one.gpus) for one in plan.replicas] for plan in fleet.plans}
    assert placed == {
        "s0": [("gpu-1", (0,)), ("gpu-2", (0, 1))],
        "s1": [("gpu-1", (1,)), ("gpu-2", (2, 3))],
    }


def test_pinned_gpus_belong_to_their_service(key: Path):
    pinned = ("gpu_hosts", {"gpus": "2x NVIDIA L40S", "pinned_gpus": {"s1": [0, 1]}}, "10.0.0.11")
    fleet = build(several(key, {}, {"first_port": 9001}, **{"gpu-1": pinned}))
    assert [one.host for one in fleet.plans[0].replicas if one.host == "gpu-1"] == []
    assert [one.gpus for one in fleet.plans[1].replicas if one.host == "gpu-1"] == [(0,), (1,)]


@pytest.mark.parametrize(
    ("services", "hosts", "expected"),
    [
        (({}, {"name": "s0"}), {}, "s0 is there 2 times"),
        (({"share": 0.7}, {"share": 0.7}), {}, "their shares add up to 1.4"),
        (({}, {}), {}, "would both listen on 8001"),
        (({}, {"route": {}}), {}, "services[1].route: /v1/ is services[0]'s"),
        (
            ({}, {"first_port": 9001}),
            {
                "gpu-1": (
                    "gpu_hosts",
                    {"gpus": "2x NVIDIA L40S", "ports": [8001, 8002]},
                    "10.0.0.11",
                )
            },
            "hosts[gpu-1].ports: are for one service",
        ),
        (
            ({}, {"first_port": 9001}),
            {
                "gpu-1": (
                    "gpu_hosts",
                    {"gpus": "2x NVIDIA L40S", "pinned_gpus": {"s2": [0]}},
                    "10.0.0.11",
                )
            },
            "hosts[gpu-1].pinned_gpus: s2 is no service",
        ),
    ],
)
def test_services_that_do_not_go_together_are_refused(
    key: Path, services: tuple, hosts: dict, expected: str
):
    found = problems(several(key, *services, **hosts))
    assert any(expected in problem for problem in found), found


def measured(fleet: Fleet, name: str, *verdicts: LinkVerdict) -> tuple[Fleet | None, Fleet]:
    hardware = fleet.host(name).hardware
    assert hardware is not None
    return with_hardware(fleet, name, replace(hardware, interconnect=verdicts))


def on(fleet: Fleet | None, name: str) -> HostPlan:
    plan = fleet.plans[0].on(name) if fleet else None
    assert plan is not None
    return plan


def test_a_fleet_goes_on_with_a_plan_in_which_p2p_alone_differs(key: Path):
    fleet = build(declared(key))
    hangs = LinkVerdict((0, 1), True, "hangs")
    adopted, _ = measured(fleet, "gpu-2", hangs, LinkVerdict((0, 1), False, "works"))
    assert [one.p2p for one in on(adopted, "gpu-2").replicas] == [False, True]
    assert adopted is not None and adopted.host("gpu-2").hardware != fleet.host("gpu-2").hardware
    assert on(adopted, "gpu-1") == on(fleet, "gpu-1")
    assert measured(fleet, "gpu-2")[0] == fleet


def test_a_fleet_does_not_go_on_with_another_plan(key: Path):
    fleet = build(declared(key))
    adopted, new = measured(fleet, "gpu-2", LinkVerdict((0, 1), True, "hangs"))
    assert adopted is None
    assert [one.gpus for one in on(new, "gpu-2").replicas] == [(0, 2), (1, 3)]


def test_a_new_plan_may_not_go_with_the_ports(key: Path):
    gpus = {"gpus": "4x NVIDIA A10G", "ports": (8001, 8002)}
    fleet = build(declared(key, HOSTS | {"gpu-2": ("gpu_hosts", gpus, "10.0.0.12")}))
    pairs = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3))
    hang = tuple(LinkVerdict(pair, True, "hangs") for pair in pairs)
    with pytest.raises(ValueError, match=r"hosts\[gpu-2\].ports: 2 ports for 1 replicas"):
        measured(fleet, "gpu-2", *hang)


def with_amd(**own: Any) -> dict[str, Any]:
    """The hosts with one more of AMD's cards, whose driver may have settings of its own."""
    mine = {"gpus": "2x AMD Instinct MI300X", "engines": {"vllm": {"device": "rocm"}}} | own
    return HOSTS | {"gpu-3": ("gpu_hosts", mine, "10.0.0.13")}


def test_what_the_fleet_says_of_nvidias_driver_is_not_for_hosts_with_amds_cards(key: Path):
    driver = {"branch": 580, "reboot": "when-needed"}
    fleet = build(declared(key, with_amd(), driver=driver, **vllm({"allow_unhashed": True})))
    assert fleet.host("gpu-1").driver.branch == 580
    assert fleet.host("gpu-3").driver.branch is None
    assert fleet.host("gpu-3").driver.reboot == "when-needed"
    output = problems(declared(key, with_amd(driver={"branch": 580})))
    assert any("hosts[gpu-3].driver.branch: is NVIDIA's" in line for line in output)


def test_batches_are_of_the_fleet(key: Path):
    output = problems(declared(key, with_amd(driver={"reboot_batches": 2})))
    assert any("reboot_batches is of the fleet" in line for line in output)


@pytest.mark.parametrize(
    ("environment", "refused"),
    [({}, False), ({"HF_ENDPOINT": "https://h"}, False), ({"HF_ENDPOINT": "http://h"}, True)],
)
def test_engines_send_the_hubs_token_over_tls_alone(
    key: Path, environment: dict[str, str], refused: bool
):
    own = vllm({"environment": environment, "hub_token_file": str(key)})
    if not refused:
        assert build(declared(key, **own)).plans
        return
    (problem,) = problems(declared(key, **own))
    assert problem.startswith("engines.vllm.hub_token_file: the token goes over TLS alone")


def test_a_recipe_names_the_parsers_that_the_inventory_does_not(key: Path):
    qwen = {"model": "Qwen/Qwen3-8B", "max_model_len": 4096}
    fleet = build(declared(key, service=qwen))
    options = served(fleet.settings.services[0]).arguments
    assert options["tool-call-parser"] == "hermes" and options["enable-auto-tool-choice"] is True
    assert options["reasoning-parser"] == "qwen3"
    reasons = fleet.plans[0].hosts[0].reasons
    assert any("models/Qwen/Qwen3" in text and "hermes" in text for text in reasons)
    other = {"arguments": {"tool-call-parser": "qwen3_xml"}}
    options = served(build(declared(key, service=qwen | other)).settings.services[0]).arguments
    assert options == {"tool-call-parser": "qwen3_xml", "reasoning-parser": "qwen3"}
    fleet = build(declared(key, service=qwen | {"recipe": False}))
    assert served(fleet.settings.services[0]).arguments == {}
    assert not any("recipe" in text for text in fleet.plans[0].hosts[0].reasons)


@pytest.mark.parametrize(
    ("service", "version", "place", "what"),
    [
        ({"model": "Qwen/Qwen3-8B"}, "0.8.0", "services[0].model", "needs vLLM 0.8.5 or newer"),
        ({"model": "Qwen/Qwen3-8B"}, "0.19.1", "", ""),
        ({"model": "Qwen/Qwen3-8B", "recipe": False}, "0.8.0", "", ""),
        (
            {"arguments": {"tool-call-parser": "hermess"}},
            "0.33.0",
            "services[0].arguments",
            "did you mean hermes?",
        ),
        (
            {"arguments": {"tool-call-parser": "mine", "tool-parser-plugin": "/srv/mine.py"}},
            "0.33.0",
            *("", ""),
        ),
        # What older versions have was not read.
        ({"arguments": {"reasoning-parser": "older"}}, "0.20.0", "", ""),
    ],
)
def test_what_a_version_lacks_is_refused(
    key: Path, service: dict[str, Any], version: str, place: str, what: str
):
    own = vllm({"requirement": f"vllm=={version}", "allow_unhashed": True})
    inventory = declared(key, service=service, **own)
    if place:
        (problem,) = problems(inventory)
        assert problem.startswith(place) and what in problem
    else:
        assert build(inventory).plans[0].replicas


def test_a_version_without_kernels_for_a_card_is_refused(key: Path):
    hosts = HOSTS | {"gpu-1": ("gpu_hosts", {"gpus": "2x Tesla T4"}, "10.0.0.11")}
    del hosts["gpu-2"]
    service = {"model": "Qwen/Qwen3-8B-FP8", "max_model_len": 2048}
    assert build(declared(key, hosts, service=service)).plans[0].replicas
    old = vllm({"requirement": "vllm==0.15.1", "allow_unhashed": True})
    (problem,) = problems(declared(key, hosts, service=service, **old))
    assert "no kernels for Tesla T4" in problem


def test_a_version_whose_defaults_leave_too_little_memory_is_refused(key: Path):
    """The plan is by the newest rules; vLLM 0.8.3 takes 1024 requests a step on any card."""
    hosts = HOSTS | {"gpu-1": ("gpu_hosts", {"gpus": "1x NVIDIA A10G"}, "10.0.0.11")}
    del hosts["gpu-2"]
    service = {"model": "Qwen/Qwen2.5-7B-Instruct", "max_model_len": 4096, "min_concurrency": 2}
    old = vllm({"requirement": "vllm==0.8.3", "allow_unhashed": True})
    (problem,) = problems(declared(key, hosts, service=service, **old))
    assert problem.startswith("services[0].arguments: vLLM 0.8.3")
    assert '{"max-num-seqs": 64}' in problem
    fewer = service | {"arguments": {"max-num-seqs": 64}}
    assert build(declared(key, hosts, service=fewer, **old)).plans[0].replicas
    newer = vllm({"requirement": "vllm==0.8.4", "allow_unhashed": True})
    assert build(declared(key, hosts, service=service, **newer)).plans[0].replicas


def keyless(key: Path, **fleet: Any) -> Declaration:
    """A service of an engine that asks for no key."""
    service = {
        "model": gguf_model("Llama-3.1-8B-Instruct"),
        "engine": "ollama",
        "weights": "/srv/m.gguf",
        **fleet.pop("service", {}),
    }
    engines = {"ollama": {"archive": "/srv/ollama.tgz", "sha256": "a" * 64}}
    return declared(key, service=service, engines=engines, **fleet)


def test_an_engine_without_keys_serves_behind_a_balancer_and_a_firewall(key: Path):
    assert build(keyless(key)).plans[0].replicas


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        ({"launch": {"firewall": False}}, "launch.firewall is off"),
        ({"launch": {"allow_from": ["10.0.9.0/24"]}}, "launch.allow_from lets others"),
    ],
)
def test_an_engine_without_keys_is_open_to_nobody_else(key: Path, fleet: dict[str, Any], said: str):
    (problem,) = problems(keyless(key, **fleet))
    assert (
        problem.startswith("services[0].engine: ollama asks for no key, and ") and said in problem
    )


def test_an_engine_without_keys_needs_a_balancer(key: Path):
    alone = {"single_endpoint": True, "route": {"api_key_file": str(key)}}
    hosts = {name: one for name, one in HOSTS.items() if one[0] == "gpu_hosts"}
    (problem,) = problems(keyless(key, service=alone, hosts=hosts, balancer=None))
    assert "there is no balancer, which would" in problem


@pytest.mark.parametrize(
    ("engines", "kind", "part"),
    [
        ({}, "vllm", "the model is safetensors files"),
        ({"sglang": {}}, "sglang", "the inventory has no other"),
        ({"sglang": {}, "vllm": {}}, "vllm", "the ranges overlap, so vLLM stays"),
    ],
)
def test_the_plan_chooses_among_the_engines_that_the_inventory_has(
    key: Path, engines: dict[str, Any], kind: str, part: str
):
    service = {"engine": "auto", "concurrency": 8, "recipe": False}
    fleet = build(declared(key, service=service, engines=engines))
    assert {one.engine for one in fleet.plans[0].replicas} == {kind}
    assert part in fleet.plans[0].hosts[0].reasons[0]
    # Hosts have its build.
    assert {fleet.engine_of(name, "qwen", kind).kind for name in ("gpu-1", "gpu-2")} == {kind}
