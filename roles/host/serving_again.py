"""Runs on a host, after probe.py and serving.py: ends once the replicas that served before do."""

import re
import sys

from roles.host.probe import TASK
from roles.host.serving import LaunchError, wait

REPLICAS = "/etc/llm/replicas"
SECRETS = "/etc/llm/secrets/engine.env"


def setting(text, name):
    """A value of a replica's configuration file, as launch writes it: one line each."""
    found = re.search(r"^%s: *['\"]?([^'\"\n]+)" % re.escape(name), text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def key():
    """The engines' key, as it stands in the file that systemd reads."""
    with open(SECRETS) as file:
        found = re.search(r'^VLLM_API_KEY="(.*)"$', file.read(), re.MULTILINE)
    return re.sub(r"\\(.)", r"\1", found.group(1)) if found else ""


def main():
    """Wait for each replica; the exit status is 1, with its log, where one does not serve."""
    try:
        TASK["key"] = key()
        for name in TASK["names"]:
            with open("%s/%s.yaml" % (REPLICAS, name)) as file:
                text = file.read()
            wait(name, int(setting(text, "port")), setting(text, "served-model-name"), TASK["key"])
    except (LaunchError, OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
