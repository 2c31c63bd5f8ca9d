"""The steps of setting a balancer up, each with as few round trips as it can have."""

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation
from pyinfra.context import host, state
from pyinfra.facts.deb import DebPackages
from pyinfra.operations import apt

from roles.balancer import completions, nginx
from roles.balancer.aside import set_aside_script, take_back_script
from roles.balancer.certificate import make_script
from roles.balancer.facts import CertificateNames, Completions, NginxState
from roles.balancer.render import render_keys, render_site
from roles.balancer.settings import BalancerSettings
from roles.balancer.upstream import Server, plain, servers
from roles.host import HostFile, SecretInput
from roles.host.facts import FileStates
from roles.host.operations import present
from roles.plan import Plan


@operation()
def installed(packages: Sequence[str]):
    """
    Install the packages that are missing; apt's lists are refreshed only then.

    + packages: the names of Debian packages
    """
    there = host.get_fact(DebPackages)  # once: pyinfra does not remember facts
    missing = [package for package in packages if package not in there]
    if not missing:
        host.noop("all packages are installed")
        return
    main_file = f"{nginx.ROOT}/nginx.conf"
    new = "nginx" in missing and not host.get_fact(FileStates, paths=[main_file])
    yield from apt.packages._inner(packages=missing, update=True, no_recommends=True)
    if new:
        # Debian's default site takes port 80: nginx would not start where something else has it.
        yield f"rm -f {nginx.DEFAULT_SITE}"


@dataclass
class Answers:
    """What the replicas answered a balancer in this run.

    `failed` says by replica id why one gave no token; `none` that there is a site already and none
    answers as it must: then everything of the balancer stays as it was. A roll that stopped early
    has left the engines with the ports and the key of that site.
    """

    failed: dict[str, str] = field(default_factory=dict)
    none: bool = False


@operation()
def asked(
    settings: BalancerSettings,
    candidates: Sequence[Server],
    model_name: str,
    answers: Answers,
):
    """
    Ask every replica for a token, when the run executes: the engines have been started by then.

    + candidates: all replicas; those that are out are not asked
    + model_name: as the engines serve it
    + answers: where the answers go; a dry run takes all replicas for good
    """
    host.noop("asking changes nothing")
    if state.is_executing:
        targets = [server for server in candidates if server.out is None]
        answers.failed = _failures(settings, targets, model_name)
        if all(server.name in answers.failed for server in targets):
            answers.none = bool(host.get_fact(FileStates, paths=[nginx.SITE]))
    if answers.none:
        logger.warning(
            f"{host.print_prefix}no replica answers as planned: the site that was here before, its "
            "keys and its certificate stay as they are"
        )
    return
    yield


def _failures(
    settings: BalancerSettings, targets: Sequence[Server], model_name: str
) -> dict[str, str]:
    script = completions.script(
        targets, model_name, settings.engine_key, settings.completion_timeout_s
    )
    results = host.get_fact(Completions, _stdin=SecretInput(script))
    for name, result in results.items():
        if not result["ok"]:
            error = plain(str(result["error"]))
            logger.warning(f"{host.print_prefix}{name} gave no completion: {error}")
    return completions.failures(results)


@operation()
def self_signed(path: str, names: Collection[str], answers: Answers):
    """
    Make a self-signed certificate where there is none for these names, or it is about to expire.

    + path: the one file for the certificate and its key
    + names: the subject's alternative names, as OpenSSL writes them
    + answers: what the replicas answered
    """
    if answers.none:
        host.noop("the certificate stays as it is")
        return
    if host.get_fact(CertificateNames, path=path) == frozenset(names):
        host.noop("the certificate is valid")
        return
    yield StringCommand("sh", "-c", shlex.quote(make_script(path, names)))


@operation()
def site(
    settings: BalancerSettings,
    plan: Plan,
    addresses: Mapping[str, str],
    drained: Collection[str],
    answers: Answers,
):
    """
    Write nginx's files with those replicas in that gave a token.

    + plan: of the whole inventory, whatever this run is limited to
    + addresses: IP addresses by host
    + drained: hosts that get no requests
    + answers: what the replicas answered
    """
    if answers.none:
        host.noop("the site stays as it is")
        return
    chosen = servers(plan, addresses, drained, answers.failed)
    for server in chosen:
        if server.kept:
            logger.warning(f"{host.print_prefix}{server.comment}")
    yield from present._inner(
        files=site_files(settings, chosen),
        check=nginx.check(),
        absent=nginx.other_certificate(settings),
    )


def site_files(settings: BalancerSettings, chosen: Sequence[Server]) -> list[HostFile]:
    """All files of the balancer, those that others refer to first."""
    return [
        *nginx.given_certificate(settings),
        HostFile(nginx.KEYS, render_keys(settings.api_key, settings.engine_key), mode="600"),
        HostFile(nginx.SITE, render_site(settings, chosen, *nginx.certificate_paths(settings))),
    ]


@operation()
def serving(answers: Answers):
    """
    Have nginx enabled, running, and running with the balancer's files as they are now.

    + answers: where none is right, a running nginx goes on with what it has loaded
    """
    found = host.get_fact(NginxState)
    found["loaded"] |= answers.none
    if all(found.values()):
        host.noop("nginx is running with these files")
        return
    if not found["enabled"]:
        yield "systemctl enable nginx"
    if not found["active"]:
        yield StringCommand("sh", "-c", shlex.quote(nginx.start_script()))
    elif not found["loaded"]:
        yield StringCommand("sh", "-c", shlex.quote(nginx.reload_script()))


@operation()
def set_aside(addresses: Callable[[], Collection[str]]):
    """
    Send no new requests to the replicas at these addresses, until `take_back`.

    + addresses: IP addresses of hosts, asked when the operation is executed

    Where no other replica is in, they stay in: the upstream is never empty.
    """
    yield from _edited(set_aside_script, addresses)


@operation()
def take_back(addresses: Callable[[], Collection[str]]):
    """
    Undo `set_aside`: the site is as it was, byte for byte.

    + addresses: IP addresses of hosts, asked when the operation is executed
    """
    yield from _edited(take_back_script, addresses)


def _edited(script: Callable[[Collection[str]], str], addresses: Callable[[], Collection[str]]):
    found = addresses() if state.is_executing else ()
    if found:
        yield StringCommand("sh", "-c", shlex.quote(script(found)))
    else:
        host.noop("nothing restarts here" if state.is_executing else "decided when executed")
