"""How SGLang is started: its options from the plan, its key, its log and its unit."""

import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import yaml

from roles.engine import Placement, Served, SglangSettings, Start, deployment
from roles.engine.arguments import option_names
from roles.engine.sglang.arguments import OPTIONS
from roles.engine.sglang.start import CONFIG, LOGGING
from roles.hardware import declared_hardware
from roles.plan import Replica
from roles.topology import ServiceSettings, plan_host

PLACE = Placement("10.0.0.5", 29500, 300)
QWEN = "Qwen/Qwen2.5-14B-Instruct"
# Lines of a real start of SGLang 0.5.23, in their order.
LOG = """[MainProcess] Using default HuggingFace chat template with detected content format: string
[SpawnProcess-1] Load weight begin. avail mem=16.34 GB
Multi-thread loading shards:   0% Completed | 0/1 [00:00<?, ?it/s]
Multi-thread loading shards: 100% Completed | 1/1 [00:00<00:00, 356.93it/s]
[SpawnProcess-1] Load weight end. elapsed=0.28 s, type=LlamaForCausalLM, avail mem=16.35 GB
[SpawnProcess-1] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 8192, K size: 0.00 GB
[SpawnProcess-1] Memory pool end. avail mem=16.36 GB
[SpawnProcess-1] max_total_num_tokens=8192, chunked_prefill_size=2048, max_prefill_tokens=16384
"""


def replica(gpus: str = "4x NVIDIA A10G", **settings: Any) -> Replica:
    given = {"name": "chat", "model": QWEN, "engine": "sglang", "max_model_len": 4096}
    service = ServiceSettings.model_validate(given | settings)
    return plan_host(service, "gpu1", declared_hardware(gpus, None)).replicas[0]


def start(of: Replica | None = None, build: SglangSettings | None = None, **served: Any) -> Start:
    own = build or SglangSettings()
    what = Served("acme/chat", served.pop("weights", "/srv/chat"), **served)
    return deployment(own).start(of or replica(), what, own, PLACE)


def options(found: Start) -> dict[str, Any]:
    return yaml.safe_load(found.files[CONFIG])


def test_the_plan_becomes_options():
    of = replica()
    found = options(start(of))
    assert of.shape.tensor_parallel == 4
    assert found == {
        "model-path": "/srv/chat",
        "served-model-name": "acme/chat",
        "host": "10.0.0.5",
        "port": 8001,
        "nccl-port": 29500,
        "tp-size": 4,
        "pp-size": 1,
        "context-length": 4096,
        "mem-fraction-static": of.gpu_memory_utilization,
        "max-running-requests": 2048,
        "chunked-prefill-size": 4096,
        "cuda-graph-max-bs-decode": 160,
        "enable-metrics": True,
        "log-level": "info",
        "log-level-http": "warning",
    }
    # (23028 - 512 - 1.5 x 4096 - 4 x 128 - 2 x 160 - 8 x 50) / 23028
    assert of.gpu_memory_utilization == 0.657
    assert found.keys() <= option_names(OPTIONS)


def test_a_service_may_set_the_share_and_the_cache():
    of = replica(gpu_memory_utilization=0.75)
    found = options(start(of, kv_cache_memory_bytes=2**30))
    assert found["mem-fraction-static"] == 0.75
    # 48 layers x 8 heads x 128 x 2 x 2 bytes a token, over four GPUs.
    assert found["max-total-tokens"] == pytest.approx(21845, rel=0.01)


def test_what_the_plan_changes_so_that_a_model_fits_is_set():
    model = "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4"
    names = ("chunked-prefill-size", "max-running-requests", "cuda-graph-max-bs-decode")

    def changed(gpus: str, length: int) -> list[Any]:
        of = replica(gpus, model=model, max_model_len=length, min_concurrency=2)
        found = options(start(of))
        return [*(found[name] for name in names), found.get("cuda-graph-backend-decode")]

    assert changed("4x NVIDIA GeForce RTX 4090", 8192) == [4096, 2048, 160, None]
    assert changed("4x NVIDIA A10G", 32768)[0] == 2048


def test_a_services_own_options_follow_the_files():
    arguments = {
        "tool-call-parser": "qwen25",
        "trust-remote-code": True,
        "enable-tp-lm-head-all-to-all": False,
        "disable-radix-cache": False,
        "max-running-requests": 64,
        "cuda-graph-bs-decode": "1 2 4",
        "chat-template": "a'b $(id)",
    }
    found = start(arguments=arguments)
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {found.command}"],
        env={"CREDENTIALS_DIRECTORY": "/run/credentials/x"},
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.splitlines()
    assert words[1:5] == ["-m", "sglang.launch_server", "--config", f"/run/credentials/x/{CONFIG}"]
    assert words[5:] == [
        *("--tool-call-parser", "qwen25", "--trust-remote-code"),
        *("--no-enable-tp-lm-head-all-to-all", "--max-running-requests", "64"),
        *("--cuda-graph-bs-decode", "1", "2", "4", "--chat-template", "a'b $(id)"),
    ]
    assert "max-running-requests" not in options(found)


def test_the_key_is_in_a_file_that_its_process_reads_alone():
    found = start()
    assert found.credentials == (CONFIG,) and found.key_file is not None
    assert found.key_file.name == CONFIG and not found.key_file.several
    text = found.files[CONFIG] + found.key_file.line.replace("{}", "sk-1") + "\n"
    assert yaml.safe_load(text)["api-key"] == "sk-1"
    assert "api-key" not in found.command and found.secrets == {}
    assert not any("KEY" in name for name in found.environment)


def test_the_line_of_its_log_with_the_keys_is_left_out():
    """The configuration is given to Python's logging as SGLang gives it."""
    program = """
import json, logging, logging.config, sys
logging.config.dictConfig(json.loads(sys.stdin.read()))
logging.getLogger("sglang.srt.entrypoints.engine").info("server_args={'api_key': 'sk-1'}")
logging.getLogger("sglang.srt.entrypoints.engine").warning("a warning")
logging.getLogger("sglang.srt.entrypoints.http_server").info("ready to roll")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=start().files[LOGGING],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines() == ["[MainProcess] a warning", "[MainProcess] ready to roll"]
    assert start().environment["SGLANG_LOGGING_CONFIG_PATH"] == LOGGING


def test_a_start_says_how_far_it_is():
    phases = start().phases
    text, told = "", list[str]()
    for line in LOG.splitlines():
        text += line + "\n"
        last = (-1, "")
        for one in phases:
            for found in re.finditer(one.pattern, text):
                last = max(last, (found.start(), one.words.format(*found.groups())))
        told.append(last[1])
    assert list(dict.fromkeys(told)) == [
        *("", "load", "load 0%", "load 100%", "weights are loaded"),
        *("KV cache is allocated", "warm up"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Capture cuda graph begin. This can take up to several minutes.",
        "Capture decode CUDA graph begin. backend=full, num_tokens=48",
        "Capturing batches (bs=8 avail_mem=3.20 GB):  12%|",
    ],
)
def test_the_capture_of_graphs_is_a_phase(line: str):
    assert [p.words for p in start().phases if re.search(p.pattern, line)] == [
        "capture CUDA graphs"
    ]


def test_its_steps_are_told_where_its_metrics_are_on():
    watch = start().watch
    assert watch and not watch.keyed and watch.steps == ("sglang:realtime_tokens_total",)
    assert options(start())["enable-metrics"] is True


def test_what_its_unit_needs():
    found = start()
    # Its schedulers must outlive the signal: it drains by itself, for as long as requests run.
    assert {"KillMode=mixed", "TimeoutStopSec=330"} <= set(found.unit)
    assert found.busy is None
    assert deployment(SglangSettings()).ready_path == "/health"
    assert found.environment["SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"] == "0"


def test_a_replica_sees_its_own_gpus_alone_and_talks_to_nobody_else():
    found = start(replica()).environment
    assert (found["CUDA_VISIBLE_DEVICES"], found["CUDA_DEVICE_ORDER"]) == ("0,1,2,3", "PCI_BUS_ID")
    assert {found[n] for n in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")} == {"lo"}
    assert found["CUDA_HOME"] == f"/opt/llm/engines/{SglangSettings().version_name}/cuda"
    own = SglangSettings(environment={"SGLANG_TORCH_PROFILER_DIR": "/var/cache/llm/x"})
    assert start(build=own).environment["SGLANG_TORCH_PROFILER_DIR"] == "/var/cache/llm/x"


def test_a_recorded_commit_is_pinned():
    assert options(start(weights="a/b", revision="c0ffee"))["revision"] == "c0ffee"
    elsewhere = start(weights="a/b", revision="c0ffee", arguments={"tokenizer-path": "a/c"})
    assert "revision" not in options(elsewhere)


def test_on_cpus_it_is_told_so(tmp_path: Any):
    build = SglangSettings(device="cpu", wheelhouse="/srv/wheels", allow_unhashed=True)
    assert options(start(build=build))["device"] == "cpu"
    assert shlex.split(start(build=build).command)[0].endswith("/bin/python")
