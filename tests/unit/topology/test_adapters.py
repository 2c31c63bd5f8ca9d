"""LoRA adapters of a service: each engine has them by its own options, and plans their room."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from roles.engine import LlamaCppSettings, Placement, SglangSettings, VllmSettings, deployment
from roles.engine.llama_cpp.options import options_of as llama_options
from roles.engine.vllm.start import options_of
from roles.fleet import served
from roles.hardware import declared_hardware
from roles.host.paths import ADAPTERS
from roles.topology import ServiceSettings, plan_host
from tests.adapters import gguf_adapter, peft
from tests.unit.topology.services import chat

CARD = declared_hardware("1x NVIDIA H100 80GB HBM3", None)
PLACE = Placement("127.0.0.1", 29000, 60)


def service(engine: str, adapters: dict[str, Any], **more: Any) -> ServiceSettings:
    paths = {name: str(path) for name, path in adapters.items()}
    own = {"min_concurrency": 1, "adapters": paths} | more
    return chat(engine, "Qwen/Qwen2.5-14B-Instruct", "Llama-3.1-8B-Instruct", **own)


@pytest.fixture
def two(tmp_path: Path) -> dict[str, Path]:
    return {
        "style": peft(tmp_path / "style", rank=16),
        "law": peft(tmp_path / "law", rank=20, lora_alpha=8),
    }


def test_vllm_gets_all_and_room_for_the_highest_rank(two: dict[str, Path]):
    wanted = service("vllm", two)
    (replica,) = plan_host(wanted, "h", CARD).replicas
    found = options_of(replica, served(wanted), VllmSettings(), PLACE)
    digests = [one.digest for one in wanted.lora_adapters.values()]
    assert {name: value for name, value in found.items() if "lora" in name} == {
        "enable-lora": True,
        "lora-modules": [f"style={ADAPTERS}/{digests[0]}", f"law={ADAPTERS}/{digests[1]}"],
        "max-loras": 2,
        "max-lora-rank": 32,
    }
    (without,) = plan_host(service("vllm", {}), "h", CARD).replicas
    # Two of rank 32 on every matrix, and CUDA graphs with them.
    assert replica.memory.weights_gib - without.memory.weights_gib == pytest.approx(0.5, abs=0.2)
    assert replica.memory.graphs_gib == pytest.approx(2 * without.memory.graphs_gib)
    assert replica.memory.kv_tokens < without.memory.kv_tokens


def test_sglang_gets_them_on_its_command_line(two: dict[str, Path]):
    wanted = service("sglang", two)
    (replica,) = plan_host(wanted, "h", CARD).replicas
    build = SglangSettings()
    start = deployment(build).start(replica, served(wanted), build, PLACE)
    digests = [one.digest for one in wanted.lora_adapters.values()]
    assert start.command.endswith(
        f"--lora-paths style={ADAPTERS}/{digests[0]} law={ADAPTERS}/{digests[1]} "
        "--max-loras-per-batch 3 --max-lora-rank 20"
    )
    (without,) = plan_host(service("sglang", {}), "h", CARD).replicas
    assert replica.memory.weights_gib > without.memory.weights_gib + 0.3


def test_llama_cpp_adds_its_one_to_every_answer(tmp_path: Path):
    path = gguf_adapter(tmp_path / "style.gguf", hidden=4096, outputs=4096)
    wanted = service("llama_cpp", {"style": path})
    (replica,) = plan_host(wanted, "h", CARD).replicas
    found = llama_options(replica, served(wanted), "127.0.0.1")
    (adapter,) = wanted.lora_adapters.values()
    assert found["--lora"] == f"{ADAPTERS}/{adapter.digest}/style.gguf"
    assert found["--alias"] == "Llama-3.1-8B-Instruct,style"
    (without,) = plan_host(service("llama_cpp", {}), "h", CARD).replicas
    gib = adapter.bytes / 2**30
    assert replica.memory.weights_gib == pytest.approx(without.memory.weights_gib + gib)
    assert replica.memory.headroom_gib == pytest.approx(without.memory.headroom_gib - gib)


def test_clients_ask_by_the_engines_own_names():
    kinds = (VllmSettings(), SglangSettings(), LlamaCppSettings())
    assert [deployment(one).adapter_model("org/m", "style") for one in kinds] == [
        "style",
        "org/m:style",
        "style",
    ]


@pytest.mark.parametrize(
    ("engine", "more", "part"),
    [
        ("vllm", {"model": "Qwen/Qwen2.5-7B-Instruct"}, "adapters.style: .*hidden size"),
        ("vllm", {"arguments": {"max-loras": 4}}, "max-loras in arguments contradicts adapters"),
        ("sglang", {"arguments": {"lora-paths": "a=/b"}}, "lora-paths in arguments contradicts"),
        ("vllm", {"task": "embed"}, "adapters: are served with task generate"),
        ("vllm", {"adapters": {"a b": "/x"}}, "adapters"),
        ("vllm", {"adapters": {"a": "/no/such"}}, "adapters.a: /no/such/adapter_config.json"),
        ("vllm", {"adapters": {f"a{n}": "/x" for n in range(17)}}, "adapters"),
        ("llama_cpp", {}, "adapters.style: the model's files are gguf"),
    ],
)
def test_what_cannot_be_served_is_refused(
    two: dict[str, Path], engine: str, more: dict[str, Any], part: str
):
    with pytest.raises(ValidationError, match=part):
        service(engine, more.pop("adapters", two), **more)


def test_gguf_engines_take_one_or_none(tmp_path: Path):
    paths = {
        name: gguf_adapter(tmp_path / f"{name}.gguf", hidden=4096, outputs=4096) for name in "ab"
    }
    with pytest.raises(ValidationError, match="2 of them: llama-server adds every one"):
        service("llama_cpp", paths)
    with pytest.raises(ValidationError, match="not served by Ollama here; set engine llama_cpp"):
        service("ollama", {"a": paths["a"]})
    with pytest.raises(ValidationError, match=r"set services.*adapters"):
        service("llama_cpp", {}, arguments={"lora": "/srv/a.gguf"})


def test_another_file_is_another_start(two: dict[str, Path]):
    before = served(service("vllm", two))
    peft(two["style"], rank=8)
    assert served(service("vllm", two)) != before
