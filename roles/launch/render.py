"""The files of a host's replicas, from the plan. Pure: a plan in, text out."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from roles.engine import Build, Deployment, Phase, Placement, Served, Start, Watch
from roles.host.paths import FIREWALL_RULES, FIREWALL_TABLE, FIREWALL_UNIT, UNITS
from roles.host.templates import quoted, render
from roles.launch.fingerprints import fingerprints
from roles.launch.parts import Member, as_part, digest_of, group_of
from roles.launch.settings import LaunchSettings
from roles.plan import Replica

# The number of ports that each replica has for its own processes: some engines take the next free
# port for each of them.
INTERNAL_PORTS = 100
Network = IPv4Network | IPv6Network
# Ports that Linux gives to who names none (net.ipv4.ip_local_port_range): engines on several hosts
# listen there for each other, and ask for no key.
GIVEN_PORTS = "32768-60999"
FIREWALL_UNIT_PATH = f"{UNITS}/{FIREWALL_UNIT}"


@dataclass(frozen=True)
class Assignment:
    """A planned replica with everything that its start depends on.

    `engine` is the name of the engine's kind, `key` the API key that it expects ("": none).
    `devices` maps a GPU's index to the name that CUDA knows it by, where that is another. `card` is
    the kind of its GPUs, as a part of a path. `host` is this one, and `members` are all hosts of a
    replica over several by rank, empty for a replica of one host.
    """

    replica: Replica
    engine: str
    deployment: Deployment
    build: Build
    served: Served
    key: str = field(repr=False)
    devices: Mapping[int, str] = field(default_factory=dict)
    card: str = ""
    host: str = ""
    members: tuple[Member, ...] = ()

    @property
    def rank(self) -> int:
        """The rank of this host's part; 0 for a replica of one host, too."""
        return self.replica.hosts.index(self.host) if self.members else 0


@dataclass(frozen=True)
class FolderFile:
    """A file of a replica's numbered folder.

    The host adds each line of `key_lines` once for each key, for at most `keys` keys.
    """

    text: str = field(repr=False)
    mode: str = "644"
    key_lines: tuple[str, ...] = ()
    keys: int = 0


@dataclass(frozen=True)
class ReplicaFiles:
    """The numbered folder of a replica, which must restart when `digest` changes.

    `entry` is its entry in the manifest, without its folder and without secrets; `phases` are what
    its log says while it starts, and `listens_first` whether nothing else tells.
    """

    name: str
    port: int
    gpus: tuple[int, ...]
    key: str = field(repr=False)
    files: Mapping[str, FolderFile]
    digest: str
    entry: Mapping[str, Any]
    phases: tuple[Phase, ...] = ()
    listens_first: bool = False

    @property
    def key_digest(self) -> str:
        """SHA-256 of the key that the replica expects, "" for none."""
        return hashlib.sha256(self.key.encode()).hexdigest() if self.key else ""

    @property
    def single_key(self) -> bool:
        """Whether its engine accepts only one key at a time."""
        return any(file.key_lines and file.keys == 1 for file in self.files.values())


def shared_unit() -> str:
    """The template unit that all replicas of a host share: what never differs between them."""
    return render("systemd/llm-engine@.service.j2")


def replica_files(
    assignment: Assignment, launch: LaunchSettings, address: str, shared: str
) -> ReplicaFiles:
    """The numbered folder of a replica on a host with that address; `shared` is the shared unit."""
    replica, build = assignment.replica, assignment.build
    start = start_of(assignment, launch, address)
    files = {
        "start": FolderFile(render("systemd/start.sh.j2", name=replica.name, start=start)),
        "environment": FolderFile(
            render("systemd/environment.j2", name=replica.name, environment=start.environment)
        ),
        "unit.conf": FolderFile(unit_conf(start, build, launch)),
        **_engine_files(start, assignment.key),
    }
    own = fingerprints(start, unit=files["unit.conf"].text, template=shared)
    entry = _entry(assignment, start)
    digest = _digest(files, assignment.key, shared)
    about = json.dumps({**entry, "digest": digest}, indent=1) + "\n"
    return ReplicaFiles(
        replica.name,
        replica.port,
        replica.gpus,
        assignment.key,
        {**files, "replica.json": FolderFile(about)},
        digest,
        {**entry, "digest": digest, "settings": own},
        start.phases,
        start.listens_first,
    )


def start_of(assignment: Assignment, launch: LaunchSettings, address: str) -> Start:
    """How a replica starts on a host with that address, or the host's part of it."""
    replica, where = assignment.replica, placement(assignment, launch, address)
    start = assignment.deployment.start(replica, assignment.served, assignment.build, where)
    if where.group is None:
        return start
    names, drain_s = replica.hosts, launch.drain_timeout_s
    digest = alike(assignment, launch)
    return as_part(start, where.group, names, assignment.key, replica.name, drain_s, digest)


def alike(assignment: Assignment, launch: LaunchSettings) -> str:
    """A digest of what all parts of a replica over several hosts must have alike: how its head
    would start by the settings of this host, but for what a host has of its own."""
    replica = assignment.replica
    head = replace(
        assignment,
        replica=replica.part_on(replica.host),
        host=replica.host,
        devices={},
        card="",
    )
    where = placement(head, launch, head.members[0].address)
    return digest_of(head.deployment.start(head.replica, head.served, head.build, where))


def placement(assignment: Assignment, launch: LaunchSettings, address: str) -> Placement:
    """The settings of its host that decide how a replica starts."""
    replica = assignment.replica
    return Placement(
        listen_address=listen_address(address),
        internal_port=internal_ports(launch, replica.gpus)[0],
        drain_timeout_s=launch.drain_timeout_s,
        devices=assignment.devices,
        card=assignment.card,
        group=group_of(
            *(replica, assignment.members, assignment.host),
            first_port=internal_ports(launch, dict(replica.members).get(replica.host, ()))[0],
        ),
    )


def listen_address(address: str) -> str:
    """The address that engines listen on: any of the host's address family; nftables guards the
    port."""
    return "::" if ip_address(address).version == 6 else "0.0.0.0"


def internal_ports(launch: LaunchSettings, gpus: Sequence[int]) -> tuple[int, int]:
    """First and last port that the processes of a replica on these GPUs use among themselves.

    They are derived from its first GPU, so that no other replica of the host has them, and other
    services on the host do not change them.
    """
    first = launch.internal_ports_from + min(gpus, default=0) * INTERNAL_PORTS
    return first, first + INTERNAL_PORTS - 1


def unit_conf(start: Start, build: Build, launch: LaunchSettings) -> str:
    """The drop-in of a replica's unit: what differs from the shared unit."""
    return render(
        "systemd/replica.conf.j2",
        user=launch.user,
        device=build.device,
        firewall=launch.firewall,
        table=FIREWALL_TABLE,
        credentials=start.credentials,
        lines=start.unit,
    )


def groups(builds: Iterable[Build]) -> tuple[str, ...]:
    """The system groups that own the device files of GPUs, for engines of these builds."""
    return ("render", "video") if any(build.device == "rocm" for build in builds) else ()


@dataclass(frozen=True)
class OpenToMembers:
    """Whom the firewall of a host lets in as the other hosts of its replicas over several: their
    addresses, and the ports of these replicas' engines."""

    addresses: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()


def open_to_members(groups: Iterable[tuple[Sequence[str], int]]) -> OpenToMembers:
    """What is opened for replicas, by the addresses of their other hosts and their port."""
    known = [(others, port) for others, port in groups if others]
    addresses = dict.fromkeys(one for others, _ in known for one in others)
    return OpenToMembers(tuple(addresses), tuple(dict.fromkeys(port for _, port in known)))


def firewall_files(
    launch: LaunchSettings,
    balancers: Iterable[str],
    ports: Iterable[int],
    gpus: Iterable[int],
    members: OpenToMembers | None = None,
) -> dict[str, str]:
    """The firewall's files by path; none where there is no port or the firewall is off.

    Only balancers and `allow_from` may reach the engines' ports, and nobody the ports that the
    processes of a replica use among themselves. Hosts of the same replica reach these of each
    other, and the ports that the kernel gives, which nobody else reaches then.
    """
    ports = sorted(set(ports))
    if not launch.firewall or not ports:
        return {}
    networks = {ip_network(address) for address in balancers} | set(launch.allow_from)
    members = members or OpenToMembers()
    others = {ip_network(address) for address in members.addresses}
    last_internal = internal_ports(launch, [max(gpus, default=0)])[1]
    internal = f"{launch.internal_ports_from}-{last_internal}"
    rules = render(
        "nftables/llm.nft.j2",
        ipv4=_of_family(networks, 4),
        ipv6=_of_family(networks, 6),
        ports=ports,
        internal=internal,
        members_ipv4=_of_family(others, 4),
        members_ipv6=_of_family(others, 6),
        members_ports=(*members.ports, internal, GIVEN_PORTS),
        given=GIVEN_PORTS,
    )
    return {FIREWALL_RULES: rules, FIREWALL_UNIT_PATH: render("systemd/llm-firewall.service.j2")}


def _of_family(networks: Iterable[Network], version: int) -> list[str]:
    return [str(one) for one in sorted(networks, key=str) if one.version == version]


def _engine_files(start: Start, key: str) -> dict[str, FolderFile]:
    """The engine's own files, with keys where it expects them, and a file of all keys for the
    host's own requests."""
    texts = dict(start.files)
    if start.secrets:
        lines = [f"{name}={quoted(value)}\n" for name, value in start.secrets.items()]
        texts["secrets"] = texts.get("secrets", "") + "".join(lines)
    if start.key_file and key:
        texts.setdefault(start.key_file.name, "")
    files = {}
    for name, text in texts.items():
        takes = bool(key) and start.key_file is not None and start.key_file.name == name
        secret = takes or name == "secrets" or name in start.credentials
        lines = (start.key_file.line,) if takes and start.key_file else ()
        keys = (2 if start.key_file.several else 1) if takes and start.key_file else 0
        files[name] = FolderFile(text, "600" if secret else "644", lines, keys)
    # The host's own requests to its replicas use the first key.
    return files | ({"keys": FolderFile("", "600", ("{}",), 2)} if key else {})


def _entry(assignment: Assignment, start: Start) -> dict[str, Any]:
    replica, task = assignment.replica, assignment.served.task
    busy = {"path": start.busy.path, "gauges": list(start.busy.gauges)} if start.busy else None
    watch = _watch(start.watch) if start.watch else None
    return {
        "name": replica.name,
        "service": replica.service,
        "engine": assignment.engine,
        "version": assignment.build.version_name,
        "model": assignment.served.model,
        "port": replica.port,
        "gpus": list(replica.gpus),
        "devices": [assignment.devices[gpu] for gpu in replica.gpus if gpu in assignment.devices],
        "members": {host: list(gpus) for host, gpus in replica.members}
        or {replica.host: list(replica.gpus)},
        **_group_entry(assignment),
        "shape": str(replica.shape),
        "max_model_len": replica.max_model_len,
        **({"task": task} if task != "generate" else {}),
        **({"busy": busy} if busy else {}),
        **({"watch": watch} if watch else {}),
    }


def _group_entry(assignment: Assignment) -> dict[str, Any]:
    """What a manifest says of a part of a replica over several hosts: its rank and its group, and
    of another than the head where that answers."""
    replica, rank = assignment.replica, assignment.rank
    if not replica.members:
        return {}
    # A group's name has the form of a replica's.
    group = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{replica.name}.{replica.host}")[:128]
    head = {"head": assignment.members[0].address} if rank else {}
    return {
        "group": group,
        "hosts": list(replica.hosts),
        "addresses": [one.address for one in assignment.members],
        "rank": rank,
        **head,
    }


def _watch(watch: Watch) -> dict[str, Any]:
    return {
        "path": watch.path,
        "steps": list(watch.steps),
        "pending": list(watch.pending),
        "keyed": watch.keyed,
        **({"slots": True} if watch.slots else {}),
    }


def _digest(files: Mapping[str, FolderFile], key: str, shared: str) -> str:
    """The digest of all that a replica runs from: its folder, its key, and the shared unit."""
    parts = [shared, hashlib.sha256(key.encode()).hexdigest()]
    for name, file in sorted(files.items()):
        parts += [name, file.mode, file.text, *file.key_lines]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
