"""Four MI300X serve a 72B model with vLLM's build for ROCm."""

from roles.fleet.inventory import check

gpu_hosts = [
    ("mi300x-1", {"ssh_hostname": "192.0.2.41", "llm": {"gpus": "4x AMD Instinct MI300X"}}),
]
balancers = [("lb-1", {"ssh_hostname": "192.0.2.40"})]

_settings = {
    "services": [
        {"name": "chat", "model": "Qwen/Qwen2.5-72B-Instruct", "max_model_len": 16384},
    ],
    "engines": {
        "vllm": {
            "device": "rocm",
            # An index that has vLLM's wheels for your release of ROCm.
            "extra_index_urls": ["https://wheels.example.com/rocm/"],
            # Or "lock": "FILE", which has every package's hash, made by
            #   python -m roles.engine lock vllm==0.33.0 --extra-index-url URL > FILE
            "allow_unhashed": True,
        }
    },
    "balancer": {"server_name": "llm.example.com", "api_key_file": "secrets/amd-api.key"},
}

# Recorded once, then committed: python -m roles.fleet trust examples/amd.py.
# A host that shows another key, or none of these, is not talked to.
_ssh = {
    "ssh_known_hosts_file": "inventories/known_hosts/amd",
    "ssh_strict_host_key_checking": "yes",
}

all = (gpu_hosts + balancers, {**_ssh, "llm": _settings})

check(__file__)
