"""The paths, units and firewall table that we use on a host, each defined here once."""

ETC = "/etc/llm"
REPLICAS = f"{ETC}/replicas"
"""A folder for each replica, with numbered folders and the link `current`."""
MANIFEST = f"{ETC}/manifest.json"
"""The replicas of a GPU host, as its last deploys proved them."""
FIREWALL_RULES = f"{ETC}/firewall.nft"
GPU_SETTINGS = f"{ETC}/gpu-settings.sh"
STATE = "/var/lib/llm"
CACHE = "/var/cache/llm"
ENGINES = "/opt/llm/engines"
ADAPTERS = "/opt/llm/adapters"
"""A folder for each LoRA adapter, named by what its files hold."""
RUN_LOCK = "/run/llm-deploy.lock"
"""Held for a run from its first change of a host to its end; holds the id of the run."""
DEPLOY_LOCKS = (f"{STATE}/lock", f"{ENGINES}/.lock", RUN_LOCK)
"""Files that a deploy holds open while it moves a host's replicas, installs an engine there, or is
at work at all; the first holds the id of its run, too."""

UNITS = "/etc/systemd/system"
UNIT_PREFIX, UNIT_SUFFIX = "llm-engine@", ".service"
UNIT_TEMPLATE = f"{UNITS}/{UNIT_PREFIX}{UNIT_SUFFIX}"
"""The template unit of every replica of a host; it holds only what never differs."""
# A pattern for systemctl and journalctl.
UNIT_GLOB = f"{UNIT_PREFIX}*{UNIT_SUFFIX}"
# Matches the control group of a replica's process, of any version.
UNIT_CGROUP = rf"/{UNIT_PREFIX}[^/]+\{UNIT_SUFFIX}(?:/|$)"
GPU_SETTINGS_UNIT = "llm-gpu-settings.service"
FIREWALL_UNIT = "llm-firewall.service"
FIREWALL_TABLE = "pyinfra_llm"
WATCHDOG = "/opt/llm/watchdog"
"""The watchdog's programs."""
WATCHDOG_SETTINGS = f"{ETC}/watchdog.json"
WATCHDOG_RULES = f"{ETC}/watchdog.nft"
WATCHDOG_TABLE = "pyinfra_llm_watchdog"
WATCHDOG_UNIT, WATCHDOG_SOCKET_UNIT = "llm-watchdog.service", "llm-watchdog-helper.socket"
WATCHDOG_HELPER_UNIT = "llm-watchdog-helper.service"
WATCHDOG_SOCKET = "/run/llm-watchdog-helper.sock"
QUARANTINE = f"{STATE}/quarantine"
"""A file for each replica that only a person starts again."""
EVIDENCE = f"{STATE}/evidence"


def unit_name(replica: str) -> str:
    """The systemd unit of a replica."""
    return f"{UNIT_PREFIX}{replica}{UNIT_SUFFIX}"


def replica_name(unit: str) -> str:
    """The replica of a systemd unit."""
    return unit.removeprefix(UNIT_PREFIX).removesuffix(UNIT_SUFFIX)


def engine_folder(version_name: str) -> str:
    """Where an engine's version is installed."""
    return f"{ENGINES}/{version_name}"
