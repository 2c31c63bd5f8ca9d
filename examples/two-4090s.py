"""One host with two RTX 4090s serves a 14B model to a small team; its balancer runs on it, too."""

from roles.fleet.inventory import check

gpu_hosts = [
    (
        "box",
        {"ssh_hostname": "192.0.2.21", "llm": {"gpus": "2x NVIDIA GeForce RTX 4090"}},
    ),
]
balancers = ["box"]

_settings = {
    "services": [
        {
            "name": "chat",
            # 27.6 GiB of weights: the plan splits them over both GPUs.
            "model": "Qwen/Qwen2.5-14B-Instruct",
            "max_model_len": 8192,
            "min_concurrency": 4,
        }
    ],
    "balancer": {"port": 8443, "api_key_file": "secrets/two-4090s-api.key"},
}

# Recorded once, then committed: python -m roles.fleet trust examples/two-4090s.py.
# A host that shows another key, or none of these, is not talked to.
_ssh = {
    "ssh_known_hosts_file": "inventories/known_hosts/two-4090s",
    "ssh_strict_host_key_checking": "yes",
}

all = (["box"], {**_ssh, "llm": _settings})

check(__file__)
