"""The lab's closed network: a switch in a namespace of its own, with no route out.

Whoever talks to hosts runs inside the switch's namespace, so a mistyped inventory cannot reach
anything but the lab.
"""

from __future__ import annotations

from .paths import CONTROL_ADDRESS, HOSTS, SWITCH, Host, sh

BRIDGE = "br0"


def make_switch() -> None:
    """The namespace with its bridge and the control side's address."""
    sh(["ip", "netns", "add", SWITCH])
    _ip_batch(
        SWITCH,
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"addr add {CONTROL_ADDRESS}/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
    )


def plug_in(host: Host) -> None:
    """A fresh namespace for the host, with a cable to the switch (its end is named as the host)."""
    unplug(host)
    # A card keeps its hardware address over a power loss; with another one, who talked to the host
    # before would go on sending to the old one for up to 45 s.
    hardware = "02:00:" + ":".join(f"{int(part):02x}" for part in host.address.split("."))
    sh(["ip", "netns", "add", host.namespace])
    _ip_batch(
        SWITCH,
        f"link add {host.name} type veth peer name eth0 address {hardware} netns {host.namespace}",
        f"link set {host.name} master {BRIDGE}",
        f"link set {host.name} up",
    )
    _ip_batch(
        host.namespace,
        "link set lo up",
        f"addr add {host.address}/24 dev eth0",
        "link set eth0 up",
    )


def unplug(host: Host) -> None:
    """Take the host's namespace and its cable away, if they are there.

    The cable first: the kernel clears a namespace only some time after its deletion, and until
    then the switch's end would still carry the host's name.
    """
    sh(["ip", "-n", SWITCH, "link", "del", host.name], check=False)
    sh(["ip", "netns", "del", host.namespace], check=False)


def cable(host: Host, state: str) -> None:
    """Pull the host's cable (`down`) or plug it in again (`up`)."""
    sh(["ip", "-n", SWITCH, "link", "set", host.name, state])


def clear() -> None:
    """Take all namespaces of the lab away."""
    present = sh(["ip", "netns", "list"]).stdout.split()
    for host in HOSTS.values():
        if host.namespace in present:
            unplug(host)
    if SWITCH in present:
        sh(["ip", "netns", "del", SWITCH])


def inside(argv: list[str]) -> list[str]:
    """The command line that runs `argv` inside the switch's namespace."""
    return ["ip", "netns", "exec", SWITCH, *argv]


def _ip_batch(namespace: str, *lines: str) -> None:
    sh(["ip", "-n", namespace, "-batch", "-"], stdin=None, input="\n".join(lines) + "\n")
