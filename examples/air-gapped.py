"""Hosts without internet: wheels and weights are copied to each of them beforehand, the driver is
in their image, and apt gets the distribution's packages from a mirror on your network, which their
own sources.list names."""

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
        # All wheels, for the hosts' Python and architecture, in this folder of each host; then no
        # index is asked.
        "vllm": {"wheelhouse": "/srv/wheels"},
    },
    # The driver comes with the hosts' image.
    "driver": {"install": "never"},
    "balancer": {"server_name": "llm.example.com", "api_key_file": "secrets/air-gapped-api.key"},
}

# Recorded once, then committed: python -m roles.fleet trust examples/air-gapped.py.
# A host that shows another key, or none of these, is not talked to.
_ssh = {
    "ssh_known_hosts_file": "inventories/known_hosts/air-gapped",
    "ssh_strict_host_key_checking": "yes",
}

all = (gpu_hosts + balancers, {**_ssh, "llm": _settings})

check(__file__)
