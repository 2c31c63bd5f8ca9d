"""Runs on a host: reads a replica that a version before the numbered folders deployed.

Such a replica runs vLLM. It has NAME.env and NAME.yaml in /etc/llm/replicas, one `key: value` a
line. The shared unit alone starts it, from /opt/llm/engines/current.
"""

import os

LEGACY_FOLDER = "/etc/llm/replicas"
LEGACY_SECRETS = "/etc/llm/secrets/engine.env"
LEGACY_MARK = "/opt/llm/engines/current"
"""Text in the ExecStart of that version's shared unit."""


def _lines(path, separator):
    with open(path) as file:
        pairs = (line.rstrip("\n").split(separator, 1) for line in file if separator in line)
        return {name: value.strip().strip("\"'") for name, value in pairs}


def is_legacy(name):
    """Whether the files of such a replica exist."""
    return os.path.exists("%s/%s.yaml" % (LEGACY_FOLDER, name))


def legacy_replica(name):
    """A replica's name, port, model and GPUs, from its files."""
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
    """The key that all replicas of that version share."""
    text = _lines(LEGACY_SECRETS, "=").get("VLLM_API_KEY", "")
    return text.replace("\\", "")
