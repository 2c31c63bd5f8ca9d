"""Staging: what CI deploys to, with `pyinfra inventories/staging.py deploys/llm.py -y`.

One GPU host and a balancer, addressed by the environment of the CI job, so that the same file
serves any runner; the comments in prod.py explain the settings that both have.
"""

import os

from roles.fleet.inventory import check

gpu_hosts = [
    (
        "staging-gpu-1",
        {
            # The job says where its host is; the default is only an example address.
            "ssh_hostname": os.environ.get("STAGING_GPU_HOST", "198.51.100.11"),
            # The user and the key that the job logs in with; the user needs passwordless sudo.
            "ssh_user": os.environ.get("STAGING_SSH_USER", "deploy"),
            "llm": {"gpus": os.environ.get("STAGING_GPUS", "1x NVIDIA L4")},
        },
    ),
]

balancers = [
    (
        "staging-lb-1",
        {
            "ssh_hostname": os.environ.get("STAGING_BALANCER", "198.51.100.10"),
            "ssh_user": os.environ.get("STAGING_SSH_USER", "deploy"),
        },
    ),
]

_settings = {
    "services": [
        {
            "name": "qwen2.5-1.5b",
            # Small, so that a staging run takes minutes.
            "model": "Qwen/Qwen2.5-1.5B-Instruct",
            "max_model_len": 4096,
        }
    ],
    "balancer": {
        # CI writes its secret into this file before the run, with mode 0600.
        "api_key_file": os.environ.get("STAGING_API_KEY_FILE", "secrets/staging-api.key"),
        # And into this one the key between balancers and engines: one that the deploy makes would
        # be another in each fresh checkout, and every replica would restart for it.
        "engine_key_file": os.environ.get("STAGING_ENGINE_KEY_FILE", "secrets/staging-engines.key"),
    },
    "launch": {
        # Staging fails fast: seconds until a replica must have answered.
        "start_timeout_s": 900,
    },
    "validation": {
        # Where the JSON and JUnit files for CI go.
        "report_dir": "reports",
    },
}

# The hosts' SSH keys, recorded once: python -m roles.fleet trust inventories/staging.py. For hosts
# that are made anew for each job, the job writes this file from what their provider reports.
_ssh = {
    "ssh_known_hosts_file": os.environ.get(
        "STAGING_KNOWN_HOSTS", "inventories/known_hosts/staging"
    ),
    "ssh_strict_host_key_checking": "yes",
}

all = (gpu_hosts + balancers, {**_ssh, "llm": _settings})

# Refuses the inventory, before any host is contacted, if anything in it is wrong. Keep it last.
check(__file__)
