"""The launch state of a host, and what launch has to do there, given the plan. Pure."""

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from roles.engine import DEPLOYMENTS
from roles.host import check_address
from roles.host.paths import FIREWALL_RULES, MANIFEST, REPLICAS, STATE, UNIT_GLOB, UNIT_PREFIX
from roles.host.paths import UNIT_TEMPLATE as TEMPLATE
from roles.host.question import Part, Sections, require
from roles.launch.render import FIREWALL_UNIT_PATH, ReplicaFiles

ChangeKind = Literal["move", "start", "retire", "shared"]
# This file exists while replicas have moved, but what they share is not as planned yet.
UNFINISHED = f"{STATE}/unfinished"
SHARED = (TEMPLATE, FIREWALL_RULES, FIREWALL_UNIT_PATH, UNFINISHED)

_READINESS = Path(__file__).with_name("readiness.py").read_text(encoding="utf-8")
_READY_PATHS = "\n".join(f"{kind}) path={one.ready_path} ;;" for kind, one in DEPLOYMENTS.items())
# It runs as root, as only root can read the working directory of another user's process. Where a
# command fails the answer ends early, so that a host with replicas never looks empty.
SCRIPT = f"""asks=
listed=$(systemctl list-units --all --plain --no-legend '{UNIT_GLOB}') || exit
part units
for unit in $({{ echo "$listed"
ls /etc/systemd/system/multi-user.target.wants | grep '^{UNIT_PREFIX}'; }} |
awk '{{print $1}}' | sort -u); do
name=${{unit#{UNIT_PREFIX}}}; name=${{name%.service}}
pid=$(systemctl show -P MainPID "$unit")
folder=$(readlink "/proc/$pid/cwd")
case "$folder" in {REPLICAS}/"$name"/*) ;; *) folder= ;; esac
digest=$(sed -n 's/^ "digest": "\\([0-9a-f]*\\)".*/\\1/p' "$folder/replica.json" | head -n 1)
key=-
[ -f "${{folder:-/none}}/keys" ] &&
key=$(head -n 1 "$folder/keys" | tr -d '\n' | sha256sum | cut -d' ' -f1)
active=$(systemctl is-active "$unit")
echo "$name $active $(systemctl is-enabled "$unit") ${{digest:--}} $key"
port=$(sed -n 's/^ "port": \\([0-9]*\\).*/\\1/p' "$folder/replica.json" | head -n 1)
path=
case "$(sed -n 's/^ "engine": "\\([a-z_]*\\)".*/\\1/p' "$folder/replica.json" | head -n 1)" in
{_READY_PATHS}
esac
# Of a replica over several hosts its head answers.
head=$(sed -n 's/^ "head": "\\([0-9a-fA-F.:]*\\)".*/\\1/p' "$folder/replica.json" | head -n 1)
[ "$active" != active ] || [ -z "$port" ] || [ -z "$path" ] ||
asks="$asks $name ${{head:-127.0.0.1}} $port $path"
done
part ready
[ -z "$asks" ] || limit 10 python3 -c {shlex.quote(_READINESS)} $asks
part manifest
[ ! -e {MANIFEST} ] || cat {MANIFEST} || exit
part shared
for file in {" ".join(f"'{path}'" for path in SHARED)}; do
[ -f "$file" ] && echo "$(sha256sum <"$file" | cut -d' ' -f1) $file"
done
part firewall
nft list table inet pyinfra_llm >/dev/null && systemctl is-enabled --quiet llm-firewall && echo up
part legacy
sed -n 's/^port:[^0-9]*\\([0-9][0-9]*\\).*/\\1/p' {REPLICAS}/*.yaml
"""
PART = Part("launch", SCRIPT, root=True)


@dataclass(frozen=True)
class ReplicaUnit:
    """A replica's unit.

    `active` and `enabled` are systemd's words for its state. `digest` is that of the folder that
    its main process runs from, `key_digest` the SHA-256 of its key; both are None where there is
    none, as for replicas of an earlier version of this project. `ready` says whether its engine
    answers that it is ready, None where it could not be asked.
    """

    active: str
    enabled: str
    digest: str | None
    key_digest: str | None = None
    ready: bool | None = None

    @property
    def sight(self) -> Literal["serves", "loading", "down"] | None:
        """What the replica is at; None where its unit runs and its engine does not say more."""
        if self.active != "active":
            return "down"
        return None if self.ready is None else "serves" if self.ready else "loading"

    @property
    def up(self) -> bool:
        """Whether it runs or is starting."""
        return self.active in ("active", "activating", "reloading")


@dataclass(frozen=True)
class LaunchState:
    """What launch finds on a host.

    `units` and the entries of the `manifest` are by replica, `shared` is the SHA-256 of files that
    replicas share, by path. `firewall` says whether its rules are loaded. `legacy_ports` are those
    of replicas of an earlier version of this project, which no manifest names.
    """

    units: Mapping[str, ReplicaUnit] = field(default_factory=dict)
    manifest: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    firewall: bool = False
    legacy_ports: tuple[int, ...] = ()

    @property
    def serving(self) -> bool:
        """Whether any replica runs: then only the rolling update may change the host."""
        return any(unit.up for unit in self.units.values())


@dataclass(frozen=True)
class Change:
    """One thing that launch has to do on a host: move or start a replica, retire one that left the
    plan, or write files that replicas share.

    `replaces_only_key` says that the replica gets another key and accepts only one at a time.
    """

    kind: ChangeKind
    subject: str
    reason: str
    replaces_only_key: bool = False

    def __str__(self) -> str:
        return f"{self.subject} {self.reason}"


Gpu = Annotated[int, Field(ge=0, lt=10_000)]
HostName = Annotated[str, Field(max_length=200)]
Address = Annotated[str, AfterValidator(lambda value: str(check_address(value)))]


class _Entry(BaseModel):
    """The fields of a manifest's entry that are read here; an entry has more."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    name: str
    port: Annotated[int, Field(ge=1, le=65535)]
    digest: str
    gpus: list[Gpu]
    service: str | None = None
    rank: Annotated[int, Field(ge=0, lt=1000)] | None = None
    hosts: Annotated[list[HostName], Field(max_length=1000)] | None = None
    addresses: Annotated[list[Address], Field(max_length=1000)] | None = None
    members: dict[HostName, list[Gpu]] | None = None


class _Manifest(BaseModel):
    model_config = ConfigDict(defer_build=True)

    replicas: list[_Entry]


def parse_state(sections: Sections) -> LaunchState:
    """Read the sections of `PART`; ValueError where they are malformed or incomplete, so that a
    host that serves is never taken for an empty one."""
    require(
        sections, ("units", "ready", "manifest", "shared", "firewall", "legacy"), "its replicas"
    )
    units, ready = {}, dict(map(_readiness, sections["ready"].splitlines()))
    for line in sections["units"].splitlines():
        try:
            name, active, enabled, digest, key = line.split()
        except ValueError:
            raise ValueError(f"not the state of a replica's unit: {line!r}") from None
        units[name] = ReplicaUnit(
            active, enabled, _digest_or_none(digest), _digest_or_none(key), ready.get(name)
        )
    lines = (line.partition(" ") for line in sections["shared"].splitlines())
    shared = {path: digest for digest, _, path in lines if path}
    firewall = sections["firewall"].strip() == "up"
    manifest = read_manifest(sections["manifest"])
    legacy = tuple(map(_port, sections["legacy"].split()))
    return LaunchState(units, manifest, shared, firewall, legacy)


def _readiness(line: str) -> tuple[str, bool | None]:
    """A replica, and whether it is ready by the status of its answer."""
    found = re.fullmatch(r"(\S+) ([0-9]{1,3})", line)
    if found is None:
        raise ValueError(f"not what a replica answers: {line[:80]!r}")
    status = int(found[2])
    return found[1], True if status // 100 == 2 else False if status in (0, 503) else None


def _port(text: str) -> int:
    if not (re.fullmatch("[0-9]{1,5}", text) and 0 < int(text) < 65536):
        raise ValueError(f"not a replica's port: {text[:40]!r}")
    return int(text)


def _digest_or_none(digest: str) -> str | None:
    return None if digest == "-" else digest


def read_manifest(text: str) -> dict[str, Mapping[str, Any]]:
    """The manifest's entries by replica; empty where there is no manifest. ValueError where it is
    damaged."""
    if not text.strip():
        return {}
    try:
        manifest = _Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        why = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
        raise ValueError(f"{MANIFEST} is damaged ({why}): delete it and deploy again") from None
    return {one.name: one.model_dump(exclude_none=True) for one in manifest.replicas}


def changes(
    state: LaunchState,
    replicas: Sequence[ReplicaFiles],
    shared: Mapping[str, str],
    left_out: Collection[str] = (),
) -> list[Change]:
    """What differs between a host and its plan; empty where nothing is to be done.

    `shared` is the SHA-256 of each file that replicas share, by path. Replicas of these names that
    are `left_out` stay as they are.
    """
    found = [_change(state, one) for one in replicas]
    planned = {one.name for one in replicas} | set(left_out)
    gone = [name for name in state.units if name not in planned]
    found += [Change("retire", name, "is not in the plan") for name in gone]
    found += [
        Change("shared", path, "differs")
        for path, digest in shared.items()
        if state.shared.get(path) != digest
    ]
    if FIREWALL_RULES in shared and not state.firewall:
        found.append(Change("shared", "the firewall", "has no rules loaded"))
    if FIREWALL_RULES not in shared and FIREWALL_UNIT_PATH in state.shared:
        found.append(Change("shared", "the firewall", "is no longer wanted"))
    if UNFINISHED in state.shared:
        found.append(Change("shared", "an earlier run", "is not finished"))
    return [change for change in found if change is not None]


def _change(state: LaunchState, wanted: ReplicaFiles) -> Change | None:
    unit, entry = state.units.get(wanted.name), state.manifest.get(wanted.name)
    if unit is None or not unit.up:
        return Change("start", wanted.name, f"is {unit.active if unit else 'not there'}")
    reason = ""
    if unit.enabled != "enabled":
        reason = "does not start at boot"
    elif unit.digest != wanted.digest:
        reason = "runs from other settings"
    elif entry is None or entry["digest"] != wanted.digest:
        reason = "was never seen to serve from its settings"
    other_key = unit.key_digest not in (None, wanted.key_digest)
    only = wanted.single_key and other_key
    return Change("move", wanted.name, reason, replaces_only_key=only) if reason else None


def previous_ports(state: LaunchState) -> Iterable[int]:
    """Ports of the previous plan's replicas, which the firewall guards until the last has moved."""
    return [*(int(entry["port"]) for entry in state.manifest.values()), *state.legacy_ports]


def previous_gpus(state: LaunchState) -> Iterable[int]:
    """GPUs of replicas of the previous plan, which their internal ports are derived from."""
    return [int(gpu) for entry in state.manifest.values() for gpu in entry["gpus"]]


def previous_groups(state: LaunchState) -> list[tuple[list[str], int]]:
    """Of each part of the previous plan's replicas over several hosts the addresses of the others,
    and the port."""
    found = []
    for entry in state.manifest.values():
        rank, addresses = entry.get("rank"), list(map(str, entry.get("addresses") or ()))
        if rank is not None:
            others = [one for place, one in enumerate(addresses) if place != rank]
            found.append((others, int(entry["port"])))
    return found
