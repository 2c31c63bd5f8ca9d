"""Llama 3.1 405B in FP8 over two hosts of eight A100s, which only both together hold.

The plan finds that, and makes one replica of them: the first host answers for both.
"""

from roles.fleet.inventory import check

gpu_hosts = [
    (
        f"a100-{number}",
        {
            "ssh_hostname": f"192.0.2.{70 + number}",
            "llm": {"gpus": "8x NVIDIA A100-SXM4-40GB", "links": "nvlink"},
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

# Recorded once, then committed: python -m roles.fleet trust examples/two-hosts-405b.py.
# A host that shows another key, or none of these, is not talked to.
_ssh = {
    "ssh_known_hosts_file": "inventories/known_hosts/two-hosts-405b",
    "ssh_strict_host_key_checking": "yes",
}

all = (gpu_hosts + balancers, {**_ssh, "llm": _settings})

check(__file__)
