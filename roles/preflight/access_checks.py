"""Checks of what keeps replicas and the balancer from serving: ports in use, firewalls, SELinux,
AppArmor. Pure."""

import re
from collections.abc import Iterator

from roles.checks import Check
from roles.host import paths
from roles.preflight.answers import Listener
from roles.preflight.context import CheckContext, ok, skipped, stop, warning

OUR_TABLE = paths.FIREWALL_TABLE


def access_checks(context: CheckContext) -> Iterator[Check]:
    """Every check of ports, firewalls and access control."""
    yield from ports(context)
    yield from given_ports(context)
    yield from firewalls(context)
    yield selinux(context)
    yield denials(context)


def ports(context: CheckContext) -> Iterator[Check]:
    """Whether another program listens on a port that is planned here."""
    if context.answers.listeners is None:
        yield skipped("ports", "the host has no ss (iproute2)")
        return
    found = [*_replica_ports(context), *_internal_ports(context), *_balancer_ports(context)]
    yield from found
    if not found:
        yield ok("ports", ", ".join(map(str, _planned_ports(context))) or "none is planned")


def given_ports(context: CheckContext) -> Iterator[Check]:
    """Whether the firewall closes the ports that the kernel gives, where engines on several hosts
    listen for each other and ask for no key."""
    closed = context.engine.given_ports if context.engine else None
    if closed is None:
        return
    (first, last), found = closed, context.answers.given_ports
    if found is None:
        yield skipped("given-ports", "the host has no net.ipv4.ip_local_port_range")
    elif first <= found[0] <= found[1] <= last:
        yield ok("given-ports", f"{found[0]}-{found[1]}")
    else:
        yield stop(
            "given-ports",
            f"net.ipv4.ip_local_port_range is {found[0]} {found[1]}: NCCL and Gloo would listen "
            f"outside {first}-{last}, which alone the firewall closes to others",
            f'set it in /etc/sysctl.d to "{first} {last}" and run sudo sysctl --system',
        )


def _planned_ports(context: CheckContext) -> list[int]:
    own = list(context.engine.ports) if context.engine else []
    return sorted([*own, *(context.needs.balancer.ports if context.needs.balancer else ())])


def _listener_on(context: CheckContext, port: int) -> Listener | None:
    """The process that listens on a port; of several the one that is not a replica."""
    found = [one for one in context.answers.listeners or () if one.port == port]
    return next((one for one in found if not _is_engine(one)), found[0] if found else None)


def _is_engine(listener: Listener) -> bool:
    return re.search(paths.UNIT_CGROUP, listener.cgroup) is not None


def _owner(context: CheckContext, listener: Listener) -> str:
    if listener.program is not None:
        unit = listener.cgroup.rsplit("/", 1)[-1]
        where = f" of {unit}" if unit.endswith(".service") else ""
        return f"{listener.program} (process {listener.pid}{where})"
    return "an unknown process" if context.answers.root else "an unknown process (sudo names it)"


def _port_in_use(
    context: CheckContext, name: str, listener: Listener, what: str, setting: str
) -> Check:
    make_check = stop if listener.program is not None else warning
    return make_check(
        name,
        f"port {listener.port}, planned for {what}, is used by {_owner(context, listener)}",
        f"stop it (sudo ss -ltnp sport = :{listener.port}), or set {setting}",
    )


def _replica_ports(context: CheckContext) -> Iterator[Check]:
    for port, replica in (context.engine.ports if context.engine else {}).items():
        listener = _listener_on(context, port)
        if listener and not _is_engine(listener) and not _may_be_engine(context, listener):
            yield _port_in_use(
                context,
                f"port:{port}",
                listener,
                replica,
                "services[].first_port or the host's ports",
            )


def _may_be_engine(context: CheckContext, listener: Listener) -> bool:
    """Whether a listener that only root could identify may be one of our engines."""
    return listener.program is None and context.answers.engine_installed


def _internal_ports(context: CheckContext) -> Iterator[Check]:
    if context.engine is None or context.engine.internal_ports is None:
        return
    first, last = context.engine.internal_ports
    for one in context.answers.listeners or ():
        inside = first <= one.port <= last
        if inside and not _is_engine(one) and not _may_be_engine(context, one):
            yield warning(
                f"port:{one.port}",
                f"port {one.port}, of {first}-{last} for the replicas' own processes, is used by "
                f"{_owner(context, one)}",
                "stop it, or set launch.internal_ports_from",
            )


def _balancer_ports(context: CheckContext) -> Iterator[Check]:
    for port, setting in (context.needs.balancer.ports if context.needs.balancer else {}).items():
        listener = _listener_on(context, port)
        if listener is None:
            continue
        if listener.program is None and not context.answers.root:
            yield warning(
                f"port:{port}",
                f"port {port} is in use; only root can see by which process",
                f"see that it is our balancer: sudo ss -ltnp sport = :{port}",
            )
        elif listener.program not in context.answers.our_balancers:
            yield _port_in_use(context, f"port:{port}", listener, "the balancer", setting)


def firewalls(context: CheckContext) -> Iterator[Check]:
    """Whether a firewall of the host blocks a planned port."""
    planned, rules = _planned_ports(context), context.answers.firewall_rules
    if not planned:
        return
    for kind, remedy in (
        ("ufw", "sudo ufw allow {port}/tcp"),
        ("firewalld", "sudo firewall-cmd --permanent --add-port={port}/tcp; firewall-cmd --reload"),
    ):
        if kind not in context.answers.firewalls:
            continue
        shut = [port for port in planned if not _allows(kind, rules, port)]
        if shut:
            yield warning(
                "firewall",
                f"{kind} is active and has no rule for port {', '.join(map(str, shut))}",
                "; ".join(remedy.replace("{port}", str(port)) for port in shut),
            )
        else:
            yield ok("firewall", f"{kind} allows all planned ports")
        return
    if where := _dropping_chain(rules):
        yield warning(
            "firewall",
            f"{where} drops packets that no rule accepts",
            f"make it accept port {', '.join(map(str, planned))}: sudo nft list ruleset",
        )
    elif context.answers.root:
        yield ok("firewall", "none drops by default")
    else:
        yield skipped("firewall", "not checked: it needs sudo")


def _allows(kind: str, rules: tuple[str, ...], port: int) -> bool:
    """Whether the rules that ufw or firewall-cmd printed allow a port."""
    own = [rule.removeprefix(f"{kind} ") for rule in rules if rule.startswith(f"{kind} ")]
    if kind == "ufw":
        return any(re.match(rf"{port}(/tcp)?\s+ALLOW", rule) for rule in own)
    words = [word for rule in own for word in rule.split()]
    return f"{port}/tcp" in words or (port == 443 and "https" in words)


def _dropping_chain(rules: tuple[str, ...]) -> str | None:
    """The first input chain with policy drop that is not ours; None where there is none."""
    table = chain = ""
    for rule in rules:
        if match := re.match(r"nft table (\S+ \S+) \{", rule):
            table = match[1]
        elif match := re.match(r"nft \s*chain (\S+) \{", rule):
            chain = match[1]
        elif "hook input" in rule and "policy drop" in rule and not table.endswith(OUR_TABLE):
            return f"nftables' chain {chain} of table {table}"
    if any(rule.startswith("iptables -P INPUT DROP") for rule in rules):
        return "iptables' chain INPUT"
    return None


def selinux(context: CheckContext) -> Check:
    """Whether SELinux is enforcing: then a balancer may not connect to engines, which have no rules
    of their own."""
    if not context.answers.selinux_enforcing:
        return ok("selinux", "not enforcing")
    if balancer := context.needs.balancer:
        return warning(
            "selinux",
            f"enforcing: {balancer.program} may not connect to engines",
            f"sudo setsebool -P {balancer.selinux_boolean} 1",
        )
    return warning(
        "selinux",
        "enforcing, and there are no rules for engines: it may deny them files and devices",
        "watch for denials: sudo ausearch -m avc -ts recent | audit2why",
    )


def denials(context: CheckContext) -> Check:
    """Whether SELinux or AppArmor denied our programs anything since the host booted."""
    if not context.answers.root:
        return skipped("denials", "not checked: it needs sudo")
    found = context.answers.denials
    if found:
        return warning(
            "denials",
            f"{len(found)} denials since boot concern engines or the balancer, the last: "
            f"{found[-1][-300:]}",
            "SELinux: sudo ausearch -m avc -ts boot | audit2why; AppArmor: sudo aa-logprof",
        )
    return ok("denials", "none since boot")
