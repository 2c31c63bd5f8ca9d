"""This machine's own GPUs, without ssh: engines and balancer on one host.

The comments in prod.py explain the settings that both have.
"""

from roles.fleet.inventory import check

# `@local` is this machine; it plays both roles.
gpu_hosts = [
    # What `nvidia-smi -L` prints here.
    ("@local", {"llm": {"gpus": "1x NVIDIA GeForce RTX 4090"}}),
]

balancers = ["@local"]

_settings = {
    "services": [
        {
            "name": "qwen2.5-7b",
            "model": "Qwen/Qwen2.5-7B-Instruct",
            "max_model_len": 8192,
            # One person's machine: KV cache for two such requests is enough.
            "min_concurrency": 2,
        }
    ],
    "balancer": {
        # Not 443: other servers may run on a workstation.
        "port": 8443,
        #   mkdir -p secrets && (umask 077; openssl rand -hex 32 > secrets/local-api.key)
        "api_key_file": "secrets/local-api.key",
    },
}

all = (["@local"], {"llm": _settings})

# Refuses the inventory, before anything is done, if anything in it is wrong. Keep it last.
check(__file__)
