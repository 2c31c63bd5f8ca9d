"""Hosts without internet: packages, weights and the driver's repository come from your network."""

from roles.fleet.inventory import check

gpu_hosts = [
    (
        f"l40s-{number}",
        {"ssh_hostname": f"192.0.2.{60 + number}", "llm": {"gpus": "4x NVIDIA L40S"}},
    )
    for number in (1, 2)
]
balancers = [("lb-1", {"ssh_hostname": "192.0.2.60"})]

_settings = {
    "services": [
        {
            "name": "chat",
            "model": "Qwen/Qwen2.5-32B-Instruct",
            # Copied to every host beforehand, so that no hub is asked.
            "weights": "/srv/models/qwen2.5-32b-instruct",
            "max_model_len": 8192,
        }
    ],
    "engines": {
        # A folder on the hosts with all wheels; then no index is asked.
        "vllm": {"wheelhouse": "/srv/wheels"},
    },
    # The driver comes with the hosts' image.
    "driver": {"install": "never"},
    "balancer": {"server_name": "llm.example.com", "api_key_file": "secrets/air-gapped-api.key"},
}

all = (gpu_hosts + balancers, {"llm": _settings})

check(__file__)
