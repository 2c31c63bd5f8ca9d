"""What a CI job deploys to: the job names its host and its secret by environment variables.

pyinfra examples/ci-staging.py deploys/llm.py -y && curl …; the reports are JUnit and JSON files.
"""

import os

from roles.fleet.inventory import check

_ssh = {
    "ssh_user": os.environ.get("STAGING_SSH_USER", "deploy"),
    # Recorded once; a host with another key is refused.
    "ssh_known_hosts_file": os.environ.get("STAGING_KNOWN_HOSTS", "secrets/known_hosts"),
    "ssh_strict_host_key_checking": "yes",
}

gpu_hosts = [
    (
        "staging-gpu-1",
        {
            **_ssh,
            "ssh_hostname": os.environ.get("STAGING_GPU_HOST", "198.51.100.11"),
            "llm": {"gpus": os.environ.get("STAGING_GPUS", "1x NVIDIA L4")},
        },
    ),
]
balancers = [
    (
        "staging-lb-1",
        {**_ssh, "ssh_hostname": os.environ.get("STAGING_BALANCER", "198.51.100.10")},
    ),
]

_settings = {
    "services": [
        {"name": "smoke", "model": "Qwen/Qwen2.5-1.5B-Instruct", "max_model_len": 4096},
    ],
    "balancer": {
        "api_key_file": os.environ.get("STAGING_API_KEY_FILE", "secrets/staging-api.key"),
    },
    # Staging fails fast.
    "launch": {"start_timeout_s": 900},
    "validation": {"report_dir": "reports"},
}

all = (gpu_hosts + balancers, {"llm": _settings})

check(__file__)
