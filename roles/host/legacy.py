"""Runs on a host: reads what a deploy of before the numbered folders left of a replica.

Such a replica has NAME.env and NAME.yaml in /etc/llm/replicas, one `key: value` a line, starts by
the shared unit alone and from /opt/llm/engines/current. It is of vLLM.
"""

import os

LEGACY_FOLDER = "/etc/llm/replicas"
LEGACY_SECRETS = "/etc/llm/secrets/engine.env"
LEGACY_MARK = "/opt/llm/engines/current"
"""What a shared unit of then has in its ExecStart."""


def _lines(path, separator):
    with open(path) as file:
        pairs = (line.rstrip("\n").split(separator, 1) for line in file if separator in line)
        return {name: value.strip().strip("\"'") for name, value in pairs}


def is_legacy(name):
    """Whether the files of such a replica are there."""
    return os.path.exists("%s/%s.yaml" % (LEGACY_FOLDER, name))


def legacy_replica(name):
    """A replica's name, port, model and GPUs, as its files say."""
    options = _lines("%s/%s.yaml" % (LEGACY_FOLDER, name), ": ")
    environment = _lines("%s/%s.env" % (LEGACY_FOLDER, name), "=")
    visible = environment.get("CUDA_VISIBLE_DEVICES") or environment.get("HIP_VISIBLE_DEVICES", "")
    return {
        "name": name,
        "port": int(options["port"]),
        "model": options["served-model-name"],
        "devices": [device for device in visible.split(",") if device],
    }


def legacy_key():
    """The key of all replicas of then."""
    text = _lines(LEGACY_SECRETS, "=").get("VLLM_API_KEY", "")
    return text.replace("\\", "")
