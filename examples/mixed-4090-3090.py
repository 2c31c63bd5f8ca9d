"""An RTX 4090 and an RTX 3090 in one host serve one model: llama.cpp splits its layers over both,
by the memory that each has."""

from roles.fleet.inventory import check

gpu_hosts = [
    (
        "mixed",
        {
            "ssh_hostname": "192.0.2.22",
            "llm": {"gpus": "1x NVIDIA GeForce RTX 4090 + 1x NVIDIA GeForce RTX 3090"},
        },
    ),
]
balancers = ["mixed"]

_settings = {
    "services": [
        {
            "name": "chat",
            "engine": "llama_cpp",
            # The sizes of a GGUF file, recorded by
            #   python -m roles.models read FILE.gguf --id Qwen/Qwen2.5-32B-Instruct-GGUF
            "model": "examples/models/qwen2.5-32b-q8.json",
            # Where the file lies on the host.
            "weights": "/srv/models/qwen2.5-32b-q8.gguf",
            "max_model_len": 8192,
            "min_concurrency": 4,
        }
    ],
    "engines": {
        "llama_cpp": {
            "version": "b11434",
            # Your build with CUDA, and its digest (sha256sum FILE).
            "archive": "https://files.example.com/llama-b11434-bin-linux-cuda-12.4-x64.tar.gz",
            "sha256": "0" * 64,
        }
    },
    "balancer": {"port": 8443, "api_key_file": "secrets/mixed-api.key"},
}

# Recorded once, then committed: python -m roles.fleet trust examples/mixed-4090-3090.py.
# A host that shows another key, or none of these, is not talked to.
_ssh = {
    "ssh_known_hosts_file": "inventories/known_hosts/mixed-4090-3090",
    "ssh_strict_host_key_checking": "yes",
}

all = (["mixed"], {**_ssh, "llm": _settings})

check(__file__)
