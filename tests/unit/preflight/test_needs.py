from dataclasses import replace
from pathlib import Path

import pytest

from roles.driver import DriverSettings
from roles.engine import (
    Build,
    EngineNeeds,
    LlamaCppSettings,
    OllamaSettings,
    VllmSettings,
    strictest,
)
from roles.hardware import declared_hardware
from roles.preflight import HostNeeds, ServiceOnHost, engine_host
from roles.preflight.checks import follow_up_parts, questions
from roles.preflight.needs import EngineHost, all_packages
from roles.preflight.network_checks import driver_urls
from roles.topology import ServiceSettings, plan_host, plan_services
from tests.adapters import peft
from tests.gguf_models import gguf_model
from tests.unit.preflight.hosts import BARE, balancer, needs, report

SERVICE = {"name": "qwen", "model": "Qwen/Qwen2.5-7B-Instruct", "max_model_len": 4096}


def engine(service: dict | None = None, **settings: object) -> EngineHost:
    own = ServiceSettings.model_validate(SERVICE | (service or {}))
    (plan,) = plan_services((own,), {"gpu1": declared_hardware("2x NVIDIA L40S", None)}, {}, {})
    host = plan.on("gpu1")
    assert host
    build = VllmSettings.model_validate(settings)
    return engine_host([build], [ServiceOnHost(own, build, host.replicas)], (29000, 29199))


def test_what_is_planned_is_needed():
    found = engine()
    assert found.ports == {8001: "qwen-0", 8002: "qwen-1"}
    assert found.internal_ports == (29000, 29199)
    assert (found.most_gpus, found.replicas) == (1, 2)
    assert found.folders[0].startswith("/opt/llm/engines/vllm-0.33.0-cuda-")
    (weights,) = found.weights
    assert weights.hub_folder == "/var/cache/llm/hub/hub/models--Qwen--Qwen2.5-7B-Instruct"
    assert 15.2e9 < weights.size_bytes < 15.3e9


def test_what_ollama_keeps_of_one_source_is_not_that_of_another():
    build = OllamaSettings()
    service = ServiceSettings.model_validate(
        SERVICE
        | {"engine": "ollama", "model": gguf_model("Llama-3.1-8B-Instruct")}
        | {"weights": "/srv/m.gguf"}
    )
    plan = plan_host(service, "gpu1", declared_hardware("1x NVIDIA L40S", None))
    (weights,) = engine_host([build], [ServiceOnHost(service, build, plan.replicas)]).weights
    assert weights.hub_folder is None and weights.copy_folder == build.copy_folder("/srv/m.gguf")
    folders = {build.hub_folder(one) for one in ("llama3:8b", "llama3:70b", "/srv/m.gguf")}
    assert len(folders) == 3


DRAFTS = {"method": "draft_model", "model": "Qwen/Qwen2.5-0.5B-Instruct"}


@pytest.mark.parametrize(
    ("drafts", "source", "folder"),
    [
        (DRAFTS, DRAFTS["model"], "/var/cache/llm/hub/hub/models--Qwen--Qwen2.5-0.5B-Instruct"),
        (DRAFTS | {"weights": "/srv/draft"}, "/srv/draft", None),
    ],
)
def test_what_drafts_is_loaded_too(drafts: dict, source: str, folder: str | None):
    own = {"model": "Qwen/Qwen2.5-1.5B-Instruct", "weights": "/srv/m", "speculative": drafts}
    model, draft = engine(own).weights
    assert (model.source, model.setting) == ("/srv/m", "services[].weights")
    assert (draft.source, draft.hub_folder) == (source, folder)
    assert draft.setting == "services[].speculative.weights"
    assert 0.9e9 < draft.size_bytes < 1.1e9
    # Nothing is loaded for drafts of the text.
    assert len(engine(own | {"speculative": {"method": "ngram"}}).weights) == 1


def test_what_one_service_serves_and_another_drafts_with_is_loaded_once():
    small = {"model": DRAFTS["model"], "weights": None}
    large = {"model": "Qwen/Qwen2.5-1.5B-Instruct", "speculative": DRAFTS}
    found = mixed((small, VllmSettings()), (large, VllmSettings()))
    assert [one.source for one in found.weights] == [DRAFTS["model"], large["model"]]


def test_adapters_are_copied_to_folders_of_their_own(tmp_path: Path):
    modules = {"self_attn.q_proj": (3584, 3584)}
    own = {name: str(peft(tmp_path / name, SERVICE["model"], rank, modules=modules))
           for name, rank in (("a", 8), ("b", 16), ("c", 16))}  # fmt: skip
    found = engine({"adapters": own}).adapters
    # Two of them are one.
    assert [size for _, size in sorted(found.items(), key=lambda one: one[1])] == [
        2 * 2 * 3584 * rank for rank in (8, 16)
    ]
    assert all(path.startswith("/opt/llm/adapters/") for path in found)
    asked = questions(replace(needs(), engine=engine({"adapters": own})))
    assert set(found) <= set(asked.weights_folders) and "/opt/llm/adapters" in asked.folders


@pytest.mark.parametrize(
    ("service", "environment", "hub", "cache"),
    [
        ({"weights": "/srv/m"}, {}, None, None),
        ({"weights": "a/b"}, {"HF_HOME": "/data/hf/"}, "https://huggingface.co", "/data/hf/hub"),
        ({"weights": "a/b"}, {"HF_HUB_CACHE": "/d"}, "https://huggingface.co", "/d"),
        ({"weights": "a/b"}, {"HF_HUB_OFFLINE": "1"}, None, "/var/cache/llm/hub/hub"),
        (
            {"weights": "a/b"},
            {"HF_ENDPOINT": "http://hub.local:8/"},
            "http://hub.local:8",
            "/var/cache/llm/hub/hub",
        ),
    ],
)
def test_where_weights_come_from(service: dict, environment: dict, hub: str, cache: str):
    (weights,) = engine(service, environment=environment).weights
    assert weights.hub == hub
    assert weights.hub_folder == (f"{cache}/models--a--b" if cache else None)


def mixed(*engines: tuple[dict, Build]) -> EngineHost:
    """A host whose services, each with what is different of it, have builds of their own."""
    served = []
    for number, (service, build) in enumerate(engines):
        own = ServiceSettings.model_validate(SERVICE | {"name": f"s{number}"} | service)
        (plan,) = plan_services((own,), {"gpu1": declared_hardware("1x NVIDIA L40S", None)}, {}, {})
        served.append(ServiceOnHost(own, build, plan.replicas))
    return engine_host([build for _, build in engines], served)


def test_each_service_is_asked_of_its_own_engines_hub():
    """A mirror, a token and a cache of one engine say nothing of another's."""
    gguf = {"model": gguf_model("Llama-3.1-8B-Instruct"), "weights": "/srv/m.gguf"}
    archive = {"archive": "https://c.local/a.tar.gz", "sha256": "a" * 64}
    mirrored = {"HF_ENDPOINT": "http://hub.local", "HF_HOME": "/data/hf"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": "/data/offline"}
    found = mixed(
        (gguf, LlamaCppSettings.model_validate(archive | {"environment": {"HF_HOME": "/x"}})),
        ({"weights": "a/mirrored"}, VllmSettings(environment=mirrored)),
        ({"weights": "a/offline"}, VllmSettings(environment=offline)),
        ({"weights": "a/public"}, VllmSettings()),
    )
    assert [(one.source, one.hub, one.hub_folder) for one in found.weights] == [
        ("/srv/m.gguf", None, None),
        ("a/mirrored", "http://hub.local", "/data/hf/hub/models--a--mirrored"),
        ("a/offline", None, "/data/offline/hub/models--a--offline"),
        ("a/public", "https://huggingface.co", "/var/cache/llm/hub/hub/models--a--public"),
    ]
    asked = urls(replace(needs(), engine=found))
    assert {name: url for name, url in asked.items() if name.startswith("hub-")} == {
        "hub-1": "http://hub.local/a/mirrored/resolve/main/config.json",
        "hub-2": "https://huggingface.co/a/public/resolve/main/config.json",
        "hub-files": "https://transfer.xethub.hf.co/",
    }


def test_a_token_is_of_the_engine_that_has_it(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("hf_x\n")
    token.chmod(0o600)
    found = mixed(
        ({"weights": "a/gated"}, VllmSettings(hub_token_file=token)),
        ({"weights": "a/other"}, VllmSettings()),
    )
    assert [one.hub_token for one in found.weights] == [True, False]


def test_weights_that_two_services_share_are_one():
    twice = mixed(({"weights": "a/b"}, VllmSettings()), ({"weights": "a/b"}, VllmSettings()))
    assert [one.source for one in twice.weights] == ["a/b"]


def urls(wanted: HostNeeds, **host: str) -> dict[str, str]:
    return dict((*questions(wanted).urls, *driver_urls(report(**host), wanted)))


def test_what_a_host_is_to_reach():
    assert urls(needs()) == {
        "index": "https://pypi.org/simple/uv/",
        "index-files": "https://files.pythonhosted.org/",
        "hub-1": "https://huggingface.co/Qwen/Qwen2.5-7B-Instruct/resolve/main/config.json",
        "hub-files": "https://transfer.xethub.hf.co/",
    }


def test_mirrors_stand_for_the_public_places():
    own = needs(
        index_url="https://pip.local/simple",
        extra_index_urls=("https://wheels.local/",),
        hub="http://hub.local",
    )
    assert urls(own) == {
        "index": "https://pip.local/simple/uv/",
        "extra-index-1": "https://wheels.local/",
        "hub-1": "http://hub.local/Qwen/Qwen2.5-7B-Instruct/resolve/main/config.json",
    }
    assert urls(needs(wheelhouse="https://w.local/", hub=None)) == {
        "wheelhouse": "https://w.local/"
    }
    house = questions(needs(wheelhouse="/srv/wheels", hub=None))
    assert (house.wheel_folders, house.urls) == (("/srv/wheels",), ())


def test_two_versions_of_an_engine_come_from_two_places():
    own = ServiceSettings.model_validate(SERVICE)
    indexes = ("https://a.local/simple", "https://b.local/simple", "https://a.local/simple")
    builds = [
        VllmSettings(requirement=f"vllm==0.3{n}.0", index_url=url) for n, url in enumerate(indexes)
    ]
    archives = [
        LlamaCppSettings(version=f"b{n}", archive=f"https://c.local/{n}.tar.gz", sha256="a" * 64)
        for n in (1, 2)
    ]
    found = engine_host([*builds, *archives], [ServiceOnHost(own, builds[0])])
    asked = urls(replace(needs(), engine=found))
    assert asked == {
        "index": "https://a.local/simple/uv/",
        "index-2": "https://b.local/simple/uv/",
        "archive": "https://c.local/1.tar.gz",
        "archive-2": "https://c.local/2.tar.gz",
    }


def test_every_builds_python_and_folder_of_wheels_is_asked_for():
    own = ServiceSettings.model_validate(SERVICE)
    sources = (("python3.11", "/srv/a"), ("python3", "/srv/b"), ("python3", "/srv/b"))
    builds = [
        VllmSettings(requirement=f"vllm==0.3{n}.0", python=python, wheelhouse=folder)
        for n, (python, folder) in enumerate(sources)
    ]
    found = replace(needs(), engine=engine_host(builds, [ServiceOnHost(own, builds[0])]))
    asked = questions(found)
    assert asked.pythons == ("python3.11", "python3")
    assert asked.wheel_folders == ("/srv/a", "/srv/b")


def test_cuda_versions_are_compared_as_numbers():
    both = [EngineNeeds("a", "cuda", cuda="9.2"), EngineNeeds("b", "cuda", cuda="12.8")]
    assert strictest(both).cuda == "12.8"


@pytest.mark.parametrize(
    ("os", "settings", "url"),
    [
        ("ubuntu 24.04", {}, None),
        ("ubuntu 24.04", {"source": "nvidia"}, "ubuntu2404/x86_64/InRelease"),
        ("debian 12", {}, "debian12/x86_64/InRelease"),
        ("rocky 9.4", {}, "rhel9/x86_64/repodata/repomd.xml"),
        ("ubuntu 24.04", {"source": "distribution"}, None),
        ("ubuntu 24.04", {"install": "never"}, None),
    ],
)
def test_where_a_driver_comes_from(os: str, settings: dict, url: str | None):
    wanted = replace(needs(), driver=DriverSettings.model_validate(settings))
    base = "https://developer.download.nvidia.com/compute/cuda/repos"
    found = urls(wanted, **BARE | {"os": os}).get("driver-repository")
    assert found == (f"{base}/{url}" if url else None)
    assert "driver-repository" not in urls(wanted, os=os), "a driver that suits is left alone"


def test_the_driver_may_come_from_a_mirror():
    settings = DriverSettings.model_validate({"mirror": "http://mirror.local/cuda/"})
    found = urls(replace(needs(), driver=settings), **BARE)
    assert found["driver-repository"] == "http://mirror.local/cuda/ubuntu2404/x86_64/InRelease"


def test_a_host_is_asked_again_only_where_it_gets_a_driver():
    wanted = replace(needs(), driver=DriverSettings())
    assert follow_up_parts(report(), wanted) == ()
    (part,) = follow_up_parts(report(**BARE | {"os": "debian 12"}), wanted)
    assert "debian12/x86_64/InRelease" in part.script and not part.root


def test_packages_of_both_roles_are_asked_for_once():
    both = replace(needs(packages=("gcc", "python3")), balancer=balancer().balancer)
    assert list(all_packages(both)) == ["gcc", "python3", "nginx", "openssl", "procps"]
