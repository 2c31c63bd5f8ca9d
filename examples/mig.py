"""Two H100s, each cut into two MIG slices of 40 GB: four replicas of an 8B model."""

from roles.fleet.inventory import check

_slices = {gpu: ["3g.40gb", "3g.40gb"] for gpu in (0, 1)}

gpu_hosts = [
    (
        "h100-1",
        {
            "ssh_hostname": "192.0.2.51",
            "llm": {
                "gpus": "2x NVIDIA H100 80GB HBM3",
                # The deploy makes the slices, also after a reboot; the plan counts each as a GPU.
                "tuning": {"mig": _slices},
            },
        },
    ),
]
balancers = [("lb-1", {"ssh_hostname": "192.0.2.50"})]

_settings = {
    "services": [
        {"name": "chat", "model": "meta-llama/Llama-3.1-8B-Instruct", "max_model_len": 8192},
    ],
    "balancer": {"server_name": "llm.example.com", "api_key_file": "secrets/mig-api.key"},
}

# Recorded once, then committed: python -m roles.fleet trust examples/mig.py.
# A host that shows another key, or none of these, is not talked to.
_ssh = {
    "ssh_known_hosts_file": "inventories/known_hosts/mig",
    "ssh_strict_host_key_checking": "yes",
}

all = (gpu_hosts + balancers, {**_ssh, "llm": _settings})

check(__file__)
