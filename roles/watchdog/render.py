"""The watchdog's files on a host. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from roles.host import HostFile, paths
from roles.host.templates import render
from roles.watchdog.policy import policy
from roles.watchdog.program import helper_program, watchdog_program
from roles.watchdog.settings import USER, ServiceWatch, WatchdogSettings

SAMPLE_S = 2
PROGRAM, HELPER = f"{paths.WATCHDOG}/watchdog.py", f"{paths.WATCHDOG}/helper.py"
QUARANTINE_DROP_IN = f"{paths.UNIT_TEMPLATE}.d/quarantine.conf"
UNIT = f"{paths.UNITS}/{paths.WATCHDOG_UNIT}"
SOCKET = f"{paths.UNITS}/{paths.WATCHDOG_SOCKET_UNIT}"
HELPER_UNIT = f"{paths.UNITS}/{paths.WATCHDOG_HELPER_UNIT}"
# Everything of the watchdog that a host may have.
FILES = (
    *(PROGRAM, HELPER, paths.WATCHDOG_SETTINGS, paths.WATCHDOG_RULES),
    *(UNIT, SOCKET, HELPER_UNIT, QUARANTINE_DROP_IN),
)
_STATE = f"{paths.STATE}/watchdog"
_METRICS = "llm.prom"


@dataclass(frozen=True)
class PeerHost:
    """Another GPU host with replicas of the same services; `replicas` are services by replica."""

    host: str
    address: str
    replicas: Mapping[str, str]


@dataclass(frozen=True)
class HostWatch:
    """What the watchdog of a host is to know.

    `services` are those with replicas there, `engines` what is watched of each kind of engine,
    `gpu_names` the names of its GPUs by index, as the driver counts them.
    `allowed` are the addresses or networks that may ask the agent port; `firewall` guards it.
    """

    host: str
    listen_address: str
    settings: WatchdogSettings
    services: Mapping[str, ServiceWatch]
    start_timeout_s: int
    engines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    peers: tuple[PeerHost, ...] = ()
    allowed: tuple[str, ...] = ()
    firewall: bool = True
    gpu_names: Mapping[int, str] = field(default_factory=dict)


def watchdog_files(watch: HostWatch) -> list[HostFile]:
    """All files of the watchdog; none where no service is watched."""
    services = {name: one for name, one in watch.services.items() if one.enabled}
    if not services:
        return []
    return [
        HostFile(PROGRAM, watchdog_program()),
        HostFile(HELPER, helper_program()),
        HostFile(paths.WATCHDOG_SETTINGS, json.dumps(configuration(watch), indent=1) + "\n"),
        HostFile(paths.WATCHDOG_RULES, rules(watch)),
        HostFile(
            SOCKET,
            render("systemd/llm-watchdog-helper.socket.j2", path=paths.WATCHDOG_SOCKET, user=USER),
        ),
        HostFile(
            HELPER_UNIT,
            render(
                "systemd/llm-watchdog-helper.service.j2",
                program=HELPER,
                settings=paths.WATCHDOG_SETTINGS,
                state=paths.STATE,
            ),
        ),
        HostFile(UNIT, unit(watch.settings.metrics_dir, watch.firewall)),
        HostFile(
            QUARANTINE_DROP_IN,
            render("systemd/llm-engine-quarantine.conf.j2", quarantine=paths.QUARANTINE),
        ),
    ]


def configuration(watch: HostWatch) -> dict[str, Any]:
    """What both programs are told."""
    settings = watch.settings
    return {
        "schema": 1,
        "host": watch.host,
        "sample_s": SAMPLE_S,
        "agent": {"address": watch.listen_address, "port": settings.port},
        "manifest": paths.MANIFEST,
        "replicas": paths.REPLICAS,
        "locks": list(paths.DEPLOY_LOCKS),
        "helper": paths.WATCHDOG_SOCKET,
        "rules": paths.WATCHDOG_RULES,
        "table": paths.WATCHDOG_TABLE,
        "state": f"{_STATE}/state.json",
        "metrics": f"{settings.metrics_dir}/{_METRICS}",
        "quarantine": paths.QUARANTINE,
        "evidence": paths.EVIDENCE,
        "rebooted": f"{paths.STATE}/rebooted-by-watchdog",
        "policy": policy(),
        "gpu_names": {str(gpu): name for gpu, name in sorted(watch.gpu_names.items())},
        "may_reset": settings.allow_gpu_reset,
        "may_reboot": settings.allow_reboot,
        "services": {
            name: {**one.model_dump(exclude={"enabled"}), "start_timeout_s": watch.start_timeout_s}
            for name, one in watch.services.items()
            if one.enabled
        },
        "engines": {kind: dict(one) for kind, one in watch.engines.items()},
        "peers": [
            {"host": peer.host, "address": peer.address, "replicas": dict(peer.replicas)}
            for peer in watch.peers
        ],
    }


def rules(watch: HostWatch) -> str:
    """The nftables rules: closed ports, and who may ask the agent port."""
    networks = sorted({ip_network(one) for one in watch.allowed}, key=str)
    return render(
        "nftables/watchdog.nft.j2",
        table=paths.WATCHDOG_TABLE,
        user=USER,
        firewall=watch.firewall,
        ipv4=[str(network) for network in networks if network.version == 4],
        ipv6=[str(network) for network in networks if network.version == 6],
        port=watch.settings.port,
    )


def unit(metrics_dir: str, firewall: bool = True) -> str:
    """The unit of the watchdog.

    Where the fleet does without a firewall, a host may lack nft: then no port is closed, and only
    balancers that ask the agent port learn of it.
    """
    # systemd gives such a folder to the user; another program's folder must stay its own.
    inside = metrics_dir.startswith(f"{paths.STATE}/")
    own = [metrics_dir.removeprefix("/var/lib/")] if inside else []
    return render(
        "systemd/llm-watchdog.service.j2",
        user=USER,
        socket=paths.WATCHDOG_SOCKET_UNIT,
        nft="+" if firewall else "-+",
        rules=paths.WATCHDOG_RULES,
        program=PROGRAM,
        settings=paths.WATCHDOG_SETTINGS,
        state_directories=[_STATE.removeprefix("/var/lib/"), *own],
        writable="" if inside else metrics_dir,
    )
