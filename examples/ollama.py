"""An L40S serves a model by Ollama: its own archive, and the model from a registry."""

from roles.fleet.inventory import check

gpu_hosts = [("small", {"ssh_hostname": "192.0.2.23", "llm": {"gpus": "1x NVIDIA L40S"}})]
balancers = ["small"]

_settings = {
    "services": [
        {
            "name": "chat",
            "engine": "ollama",
            # The sizes of the GGUF file that the registry has, recorded by
            #   python -m roles.models read FILE.gguf --id Qwen/Qwen2.5-32B-Instruct-GGUF
            "model": "examples/models/qwen2.5-32b-q8.json",
            "weights": "qwen2.5:32b-instruct-q8_0",
            "max_model_len": 8192,
            "min_concurrency": 4,
            "kv_cache_dtype": "q8_0",
        }
    ],
    "engines": {
        "ollama": {
            "version": "0.33.0",
            # Upstream's archive, and its digest (sha256sum FILE).
            "archive": "https://files.example.com/ollama-linux-amd64.tar.zst",
            "sha256": "0" * 64,
        }
    },
    "balancer": {"port": 8443, "api_key_file": "secrets/ollama-api.key"},
}

# Recorded once, then committed: python -m roles.fleet trust examples/ollama.py.
# A host that shows another key, or none of these, is not talked to.
_ssh = {
    "ssh_known_hosts_file": "inventories/known_hosts/ollama",
    "ssh_strict_host_key_checking": "yes",
}

all = (["small"], {**_ssh, "llm": _settings})

check(__file__)
