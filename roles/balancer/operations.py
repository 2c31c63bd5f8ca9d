"""The steps of setting a balancer up, each with as few round trips as it can have."""

import shlex
from collections.abc import Collection, Mapping, Sequence

from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation
from pyinfra.context import host, state
from pyinfra.facts.deb import DebPackages
from pyinfra.operations import apt

from roles.balancer import completions, nginx
from roles.balancer.certificate import make_script
from roles.balancer.facts import CertificateNames, Completions, NginxState
from roles.balancer.render import render_keys, render_site
from roles.balancer.settings import BalancerSettings
from roles.balancer.upstream import Server, plain, servers
from roles.files import HostFile
from roles.files.operations import present
from roles.launch import SecretInput
from roles.topology import Plan


@operation()
def installed(packages: Sequence[str]):
    """Install the packages that are missing; apt's lists are refreshed only then."""
    there = host.get_fact(DebPackages)  # once: pyinfra does not remember facts
    missing = [package for package in packages if package not in there]
    if not missing:
        host.noop("all packages are installed")
        return
    yield from apt.packages._inner(packages=missing, update=True, no_recommends=True)


@operation()
def self_signed(path: str, names: Collection[str]):
    """
    Make a self-signed certificate where there is none for these names, or it is about to expire.

    + path: the one file for the certificate and its key
    + names: the subject's alternative names, as OpenSSL writes them
    """
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
    model_name: str,
):
    """
    Ask every replica for a token, and write nginx's files with those in that gave one.

    + plan: of the whole inventory, whatever this run is limited to
    + addresses: IP addresses by host
    + drained: hosts that get no requests
    + model_name: as the engines serve it

    Replicas are asked when the operation is executed, after the engines have been started; a dry
    run takes them all for good.
    """
    failed: dict[str, str] = {}
    if state.is_executing:
        failed = _failures(settings, servers(plan, addresses, drained, {}), model_name)
    chosen = servers(plan, addresses, drained, failed)
    for server in chosen:
        if server.kept:
            logger.warning(f"{host.print_prefix}{server.comment}")
    yield from present._inner(
        files=site_files(settings, chosen),
        check=nginx.check(),
        absent=nginx.other_certificate(settings),
    )


def _failures(
    settings: BalancerSettings, candidates: Sequence[Server], model_name: str
) -> dict[str, str]:
    asked = [server for server in candidates if server.out is None]
    script = completions.script(
        asked, model_name, settings.engine_key, settings.completion_timeout_s
    )
    results = host.get_fact(Completions, _stdin=SecretInput(script))
    for name, result in results.items():
        if not result["ok"]:
            error = plain(str(result["error"]))
            logger.warning(f"{host.print_prefix}{name} gave no completion: {error}")
    return completions.failures(results)


def site_files(settings: BalancerSettings, chosen: Sequence[Server]) -> list[HostFile]:
    """All files of the balancer, those that others refer to first."""
    return [
        *nginx.given_certificate(settings),
        HostFile(nginx.KEYS, render_keys(settings.api_key, settings.engine_key), mode="600"),
        HostFile(nginx.SITE, render_site(settings, chosen, *nginx.certificate_paths(settings))),
    ]


@operation()
def serving(paths: Sequence[str]):
    """
    Have nginx enabled, running, and running with these files as they are now.

    + paths: the files whose content nginx must have loaded
    """
    found = host.get_fact(NginxState, paths=list(paths))
    if all(found.values()):
        host.noop("nginx is running with these files")
        return
    if not found["enabled"]:
        yield "systemctl enable nginx"
    if not found["active"]:
        yield StringCommand("sh", "-c", shlex.quote(nginx.start_script(paths)))
    elif not found["loaded"]:
        yield StringCommand("sh", "-c", shlex.quote(nginx.reload_script(paths)))
