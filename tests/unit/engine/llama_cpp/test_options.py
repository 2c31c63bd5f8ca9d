"""The options that llama-server starts with."""

from typing import Any

from roles.engine import Served
from roles.engine.llama_cpp.options import options_of
from roles.hardware import declared_hardware
from roles.plan import Replica
from roles.topology import ServiceSettings, plan_host
from tests.gguf_models import gguf_model


def planned(gpus: list[str], **more: Any) -> tuple[Replica, Served]:
    service = ServiceSettings.model_validate(
        {
            "name": "chat",
            "model": gguf_model("gemma-3-12b-it"),
            "weights": "/srv/models/gemma.gguf",
            "max_model_len": 8000,
            "min_concurrency": 3,
        }
        | more
    )
    hardware = declared_hardware([{"name": name} for name in gpus], None)
    served = Served(
        model=service.model.name,
        weights=service.weights or "",
        min_concurrency=service.min_concurrency,
        arguments=service.arguments,
    )
    return plan_host(service, "gpu1", hardware).replicas[0], served


def test_one_card():
    replica, service = planned(["NVIDIA L40S"])
    assert options_of(replica, service, "10.0.0.5") == {
        "--model": "/srv/models/gemma.gguf",
        "--alias": "gemma-3-12b-it",
        "--host": "10.0.0.5",
        "--port": "8001",
        # Three slots of 8000 tokens in whole 256s.
        "--ctx-size": "24576",
        "--parallel": "3",
        "--n-gpu-layers": "all",
        "--fit": "off",
        "--metrics": None,
    }


def test_layers_over_two_cards_with_devices_of_the_service():
    arguments = {"rpc": "127.0.0.2:1,127.0.0.3:1", "device": "RPC0,RPC1", "warmup": False}
    replica, service = planned(
        ["NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3090"], arguments=arguments
    )
    options = options_of(replica, service, "127.0.0.1")
    assert (options["--split-mode"], options["--tensor-split"]) == ("layer", "22.5,22.6")
    assert list(options.items())[-3:] == [
        ("--rpc", "127.0.0.2:1,127.0.0.3:1"),
        ("--device", "RPC0,RPC1"),
        ("--no-warmup", None),
    ]


def test_what_the_service_sets_of_switches():
    arguments = {"swa-full": True, "cache-type-k": "q8_0", "temp": 0.5}
    replica, service = planned(["NVIDIA L40S"], arguments=arguments)
    options = options_of(replica, service, "127.0.0.1")
    assert options["--swa-full"] is None
    assert (options["--cache-type-k"], options["--temp"]) == ("q8_0", "0.5")
