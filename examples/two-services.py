"""Eight H100s serve two models: half of the GPUs a 70B, the others a 14B under /code."""

from roles.fleet.inventory import check

gpu_hosts = [
    (
        "h100-1",
        {
            "ssh_hostname": "192.0.2.31",
            "llm": {"gpus": "8x NVIDIA H100 80GB HBM3", "links": "nvlink"},
        },
    ),
]
balancers = [("lb-1", {"ssh_hostname": "192.0.2.30"})]

_settings = {
    "services": [
        {
            "name": "chat",
            "model": "meta-llama/Llama-3.3-70B-Instruct",
            "max_model_len": 16384,
            # Half of the GPUs: the 70B takes four of them, and six would leave two unused.
            "share": 0.5,
        },
        {
            "name": "code",
            "model": "Qwen/Qwen2.5-14B-Instruct",
            "max_model_len": 16384,
            "share": 0.5,
            # Both run on the same host, so their ports are apart.
            "first_port": 8101,
            "route": {"path_prefix": "/code", "api_key_file": "secrets/code-api.key"},
        },
    ],
    "balancer": {"server_name": "llm.example.com", "api_key_file": "secrets/chat-api.key"},
}

# Recorded once, then committed: python -m roles.fleet trust examples/two-services.py.
# A host that shows another key, or none of these, is not talked to.
_ssh = {
    "ssh_known_hosts_file": "inventories/known_hosts/two-services",
    "ssh_strict_host_key_checking": "yes",
}

all = (gpu_hosts + balancers, {**_ssh, "llm": _settings})

check(__file__)
