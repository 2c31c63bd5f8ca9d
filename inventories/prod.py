"""Production: your GPU hosts and the balancer in front of them. Edit, then review the plan with
`python -m roles.topology fleet inventories/prod.py` and deploy with
`pyinfra inventories/prod.py deploys/llm.py`.

Everything of this project stands under the key `llm`; all other data is pyinfra's own.
docs/settings.md has a table of every setting.
"""

from roles.fleet.inventory import check

# A name, how ssh reaches it, and its GPUs as `nvidia-smi` names them. A deploy stops a host whose
# GPUs are not these, before it changes anything there.
gpu_hosts = [
    (
        "gpu-1",
        {
            # An IP address: the balancers and the firewall use it too. If ssh needs a name or a
            # jump host, put that here and the address that balancers use into llm.address.
            "ssh_hostname": "192.0.2.11",
            # Who pyinfra logs in as; without these lines, as ssh itself would (~/.ssh/config).
            # "ssh_user": "deploy",
            # "ssh_key": "~/.ssh/id_ed25519",
            "llm": {
                # How many of which GPU; several kinds are joined by " + ". Or leave gpus and links
                # out and record them: pyinfra inventories/prod.py deploys/discover.py -y
                "gpus": "2x NVIDIA L40S",
                # How the GPUs reach each other: "nvlink" (every pair), "pcie", or what
                # `nvidia-smi topo -m` prints.
                "links": "pcie",
            },
        },
    ),
    ("gpu-2", {"ssh_hostname": "192.0.2.12", "llm": {"gpus": "4x NVIDIA A10G", "links": "pcie"}}),
]

# The balancer runs here; clients talk to these hosts only.
balancers = [
    ("lb-1", {"ssh_hostname": "192.0.2.10"}),
]

_settings = {
    "services": [
        {
            # Replicas are called NAME-0, NAME-1 … on each host.
            "name": "qwen2.5-14b",
            # A model of the catalog (roles/models/catalog), or its sizes as a mapping. Clients
            # ask for it by this name.
            "model": "Qwen/Qwen2.5-14B-Instruct",
            # The longest request in tokens, prompt and answer together.
            "max_model_len": 4096,
            # For how many requests of that length a replica must have KV cache: decides, with the
            # weights, how many GPUs a replica needs.
            "min_concurrency": 8,
            # Where engines load the weights from: a folder on the hosts, or a name on the model
            # hub. Without it, the model's name on the hub.
            # "weights": "/srv/models/qwen2.5-14b-instruct",
        }
    ],
    # The build of each kind of engine; a service names its kind with "engine", or takes vLLM.
    "engines": {
        "vllm": {
            # "cuda", "rocm" or "cpu".
            "device": "cuda",
            # The engine's package and exact version; another version is installed beside the old
            # one and replicas move over one after the other.
            "requirement": "vllm==0.33.0",
            # Every package with its hashes; the default requirement has a lock already. For
            # another: python -m roles.engine lock vllm==0.32.0 > locks/vllm-0.32.0.txt
            # "lock": "locks/vllm-0.32.0.txt",
            # For hosts without internet: a URL or a folder on the hosts with all wheels.
            # "wheelhouse": "https://192.0.2.5/wheels/",
        },
    },
    "balancer": {
        # The port that clients reach, TLS only.
        "port": 443,
        # The DNS name that clients use; also in the self-signed certificate.
        "server_name": "llm.example.com",
        # Your certificate; without these two lines the balancer makes a self-signed one.
        # "certificate_file": "secrets/llm.example.com.pem",
        # "certificate_key_file": "secrets/llm.example.com.key",
        # The key that clients send. Make it once:
        #   mkdir -p secrets && (umask 077; openssl rand -hex 32 > secrets/prod-api.key)
        "api_key_file": "secrets/prod-api.key",
        # The key between balancer and engines; without this line the first deploy makes it, in
        # secrets/prod/engines.key.
        # "engine_key_file": "secrets/prod-engines.key",
    },
    "validation": {
        # A GPU below this share of use under the short load is warned about.
        "busy_utilization_percent": 70,
    },
}

# The hosts' SSH keys, recorded once (then commit the file): python -m roles.fleet trust
# inventories/prod.py. A host that shows any other key is refused.
_ssh = {
    "ssh_known_hosts_file": "inventories/known_hosts/prod",
    "ssh_strict_host_key_checking": "yes",
}

all = (gpu_hosts + balancers, {**_ssh, "llm": _settings})

# Refuses the inventory, before any host is contacted, if anything in it is wrong. Keep it last.
check(__file__)
