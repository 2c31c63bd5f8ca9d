"""Llama 3.1 405B in FP8 over two hosts of eight A100s: planned, with the network's speed stated.

The plan says how both hosts would share the model; a deploy starts replicas of one host alone.
"""

from roles.fleet.inventory import check

gpu_hosts = [
    (
        f"a100-{number}",
        {
            "ssh_hostname": f"192.0.2.{70 + number}",
            "llm": {
                "gpus": "8x NVIDIA A100-SXM4-40GB",
                "links": "nvlink",
                "network_gbit_s": 200,
            },
        },
    )
    for number in (1, 2)
]
balancers = [("lb-1", {"ssh_hostname": "192.0.2.70"})]

_settings = {
    "services": [
        {
            "name": "chat",
            "model": "meta-llama/Llama-3.1-405B-Instruct-FP8",
            "max_model_len": 8192,
        },
    ],
    "balancer": {"server_name": "llm.example.com", "api_key_file": "secrets/405b-api.key"},
}

all = (gpu_hosts + balancers, {"llm": _settings})

check(__file__)
