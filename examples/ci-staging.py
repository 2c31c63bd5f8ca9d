"""What a CI job deploys to: the job names its hosts and its files of keys by environment variables.

pyinfra examples/ci-staging.py deploys/llm.py -y && curl …; the reports are JUnit and JSON files.
"""

import os

from roles.fleet.inventory import check

_ssh = {
    "ssh_user": os.environ.get("STAGING_SSH_USER", "deploy"),
    # Recorded once, then committed: python -m roles.fleet trust examples/ci-staging.py. For hosts
    # that are made anew for each job, the job writes this file from what their provider says.
    "ssh_known_hosts_file": os.environ.get(
        "STAGING_KNOWN_HOSTS", "inventories/known_hosts/ci-staging"
    ),
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
        # The job writes both files before the run, mode 0600. A key of engines that the deploy
        # makes would be another in each fresh checkout, and every replica would restart for it.
        "api_key_file": os.environ.get("STAGING_API_KEY_FILE", "secrets/staging-api.key"),
        "engine_key_file": os.environ.get("STAGING_ENGINE_KEY_FILE", "secrets/staging-engines.key"),
    },
    # Staging fails fast.
    "launch": {"start_timeout_s": 900},
    "validation": {"report_dir": "reports"},
}

all = (gpu_hosts + balancers, {"llm": _settings})

check(__file__)
