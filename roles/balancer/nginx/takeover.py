"""Takes over a balancer of an earlier version of this project, whose site held the upstream. Pure.

Its members are read from the site once, and are in state.json from then on. The upstream moves into
a file of its own; the site and its keys stay as they are until the end of the deploy.
"""

import re
import shlex
from dataclasses import dataclass

from roles.balancer.nginx import paths
from roles.balancer.routes import Member
from roles.balancer.state import BalancerState
from roles.balancer.upstreams import Drain, Upstream

BLOCK = re.compile(r"^[ \t]*upstream[ \t]+([A-Za-z0-9._-]+)[ \t]*\{([^{}]*)^[ \t]*\}[ \t]*\n", re.M)
SERVER = re.compile(
    r"^[ \t]*server[ \t]+(\[[0-9A-Fa-f.:]+\]|[0-9.]+):(\d{1,5})([^;#]*);[ \t]*"
    r"(# set aside:([^;#]*);[ \t]*)?#[ \t]*([^:\s/]+/[^:\s]+)(?:: (.*))?$"
)
ANY_SERVER = re.compile(r"^[ \t]*server[ \t]")
DRAINED = "its host is drained"
FAILED = "its completion failed: "


@dataclass(frozen=True)
class OldBalancer:
    """The state of a balancer that is taken over, and its site without the upstream."""

    state: BalancerState
    site: str

    @property
    def service(self) -> str:
        """The one service that it served."""
        return self.state.upstreams[0].service


def take_over(site: str, run: str, since: str) -> OldBalancer | None:
    """What the site of an earlier version becomes; None for an empty or a present one.

    ValueError where its upstream cannot be read.
    """
    if not site or f"include {paths.UPSTREAMS};" in site:
        return None
    blocks = list(BLOCK.finditer(site))
    if len(blocks) != 1:
        raise ValueError(_unreadable(f"it has {len(blocks)} upstreams, not one"))
    name, body = blocks[0].groups()
    found = [_server(line, run, since) for line in body.splitlines() if ANY_SERVER.match(line)]
    if not found:
        raise ValueError(_unreadable("its upstream has no server"))
    members = tuple(member for member, _, _ in found)
    service = members[0].id.partition("/")[2].rpartition("-")[0]
    upstream = Upstream(service, name, members, {m.id: why for m, why, _ in found if why})
    drains = tuple(drain for _, _, drain in found if drain)
    state = BalancerState((upstream,), drains, *_limits(body))
    include = f"include {paths.UPSTREAMS};\n"
    return OldBalancer(state, f"{site[: blocks[0].start()]}{include}{site[blocks[0].end() :]}")


def _server(line: str, run: str, since: str) -> tuple[Member, str | None, Drain | None]:
    match = SERVER.match(line)
    if not match:
        raise ValueError(_unreadable(f"this line has another form: {line.strip()}"))
    address, port, parameters, drain_mark, old_parameters, id, comment = match.groups()
    weight = re.search(r"\bweight=(\d{1,6})", f"{parameters} {old_parameters or ''}")
    host = id.partition("/")[0]
    member = Member(id, host, address.strip("[]"), int(port), int(weight[1]) if weight else 1)
    reason = (comment or "").removeprefix("out, ").removeprefix("kept as nothing else is left, ")
    drain = None
    if drain_mark:
        drain = Drain(id, "rolling-update", run, since)
    elif reason == DRAINED:
        drain = Drain(id, "inventory", run, since)
    failed = reason.removeprefix(FAILED) if reason.startswith(FAILED) else None
    return member, failed, drain


def _limits(body: str) -> tuple[int, int]:
    fails, timeout = (
        re.search(rf"{name}=(\d{{1,6}})", body) for name in ("max_fails", "fail_timeout")
    )
    default = BalancerState()
    return (
        int(fails[1]) if fails else default.max_fails,
        int(timeout[1]) if timeout else default.fail_timeout_s,
    )


def _unreadable(why: str) -> str:
    return (
        f"{paths.SITE} is of an earlier version and cannot be taken over: {why}; move the file "
        "away and deploy again, which interrupts the service"
    )


def keys_script(service: str) -> str:
    """A script that copies the keys of an earlier version into the files of its service.

    Keys never leave the host. The old file stays, because the old site includes it.
    """
    old = shlex.quote(paths.OLD_KEYS)
    clients, engine = paths.client_keys(service), paths.engine_key(service)
    name = "".join(char if char.isalnum() else f"\\\\x{ord(char):02x}" for char in service)
    to_clients = rf's/^ *"~\^(\(\?i:Bearer\) .*\$" 1;)$/"~^{name} \1/p'
    to_engine = rf's/^ *default ("Bearer .*";)$/"~^{name}$" \1/p'
    lines = [
        f"(umask 077; mkdir -p {paths.KEYS}",
        f"LC_ALL=C sed -nE {shlex.quote(to_clients)} {old} > {shlex.quote(clients)}",
        f"LC_ALL=C sed -nE {shlex.quote(to_engine)} {old} > {shlex.quote(engine)})",
    ]
    return "\n".join(lines)
