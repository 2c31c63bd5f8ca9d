"""Checks of whether the host reaches the sources of packages, weights and drivers. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from roles.checks import Check, Outcome
from roles.engine import HUB, PackageIndex
from roles.hardware import HardwareReport
from roles.preflight.answers import UrlResult
from roles.preflight.context import CheckContext, ok, skipped, stop, unique_names, warning
from roles.preflight.disk_checks import cached_bytes, is_complete
from roles.preflight.driver_need import installs_driver, repository_url
from roles.preflight.needs import PYPI, HostNeeds, Weights

# PyPI and the hub serve files from other host names than their lists, and firewalls often forget
# these names. Source: PyPI's simple index; the hub's /.well-known/meta.json.
_PYPI_FILES = "https://files.pythonhosted.org/"
_HUB_FILES = "https://transfer.xethub.hf.co/"

# What curl's exit statuses mean (curl.1), as far as a person can act on them.
_FAILURES = {
    5: "the proxy's name cannot be resolved",
    6: "its name cannot be resolved (DNS)",
    7: "the connection was refused, or there is no route to it",
    28: "no answer in time",
    35: "TLS failed",
    47: "it redirects without end",
    52: "the answer is empty",
    56: "the connection broke (a proxy that refuses?)",
    60: "its TLS certificate is not trusted",
    97: "the proxy failed",
    124: "no answer in time",
    137: "no answer in time",
}
_REMEDIES = {
    5: "correct http_proxy and https_proxy in /etc/environment on the host",
    6: "see /etc/resolv.conf on the host (resolvectl status); behind a proxy set https_proxy in "
    "/etc/environment",
    35: "see whether a firewall on the way breaks TLS: curl -v {url}",
    60: "put the authority's certificate into /usr/local/share/ca-certificates and run "
    "sudo update-ca-certificates; see the host's clock",
}
_REMEDY = "allow it in the firewall, set https_proxy in /etc/environment on the host, or {else_}"


_INDEX = "set the engine's index_url to a mirror, or its wheelhouse to a folder with all wheels"
_HUB_ALTERNATIVE = "set HF_ENDPOINT in the engine's environment to a mirror, or weights to a folder"
# What else a person can do where a source of an engine is not reachable.
_ALTERNATIVES = {
    "archive": "set the engine's archive to a URL that hosts reach, or to a file on the hosts",
    "index": _INDEX,
    "extra-index": _INDEX,
    "wheelhouse": _INDEX,
}


def urls(needs: HostNeeds) -> tuple[tuple[str, str], ...]:
    """The URLs that a host is to fetch, as pairs of the check's name and the URL."""
    return (*_engine_urls(needs), *_hub_urls(needs))


def _engine_urls(needs: HostNeeds) -> Iterator[tuple[str, str]]:
    engine = needs.installed_engine
    if engine is None:
        return
    archives = [("archive", one) for one in engine.needs.archives if one.startswith("http")]
    indexes = [one for index in engine.needs.package_indexes for one in _index_urls(index)]
    found = tuple(dict.fromkeys((*archives, *indexes)))
    for name, (_, url) in zip(unique_names(name for name, _ in found), found, strict=True):
        yield ("extra-index-1" if name == "extra-index" else name), url


def _index_urls(index: PackageIndex) -> Iterator[tuple[str, str]]:
    if index.wheelhouse:
        if not index.wheelhouse.startswith("/"):
            yield "wheelhouse", index.wheelhouse
        return
    # pip installs uv from this index first, so the index must have it.
    yield "index", f"{(index.index_url or PYPI).rstrip('/')}/uv/"
    if index.index_url is None:
        yield "index-files", _PYPI_FILES
    for url in index.extra_index_urls:
        yield "extra-index", url


def _hub_urls(needs: HostNeeds) -> Iterator[tuple[str, str]]:
    pages = _hub_pages(needs)
    for number, page in enumerate(pages, 1):
        yield f"hub-{number}", page
    if any(one.hub == HUB for weights in pages.values() for one in weights):
        yield "hub-files", _HUB_FILES


def _hub_pages(needs: HostNeeds) -> dict[str, list[Weights]]:
    """The URLs of models' pages on their hubs, each with the weights that come from it."""
    engine, pages = needs.installed_engine, dict[str, list[Weights]]()
    for one in engine.weights if engine else ():
        if one.hub and one.hub_folder:
            pages.setdefault(f"{one.hub}/{one.hub_page}", []).append(one)
    return pages


def driver_urls(report: HardwareReport, needs: HostNeeds) -> tuple[tuple[str, str], ...]:
    """The URL that a host must reach to get its driver; none where the run installs none."""
    url = repository_url(report, needs)
    return (("driver-repository", url),) if url else ()


def network_checks(context: CheckContext) -> Iterator[Check]:
    """Every check of what the host must reach."""
    if context.engine:
        yield from engine_sources(context)
        yield from hub(context)
        yield from pip_index(context)
    if context.needs.driver:
        yield driver_repository(context)
    yield distribution(context)
    yield from proxies(context)


def _urls_by_name(context: CheckContext) -> dict[str, str]:
    return dict((*urls(context.needs), *driver_urls(context.report, context.needs)))


def engine_sources(context: CheckContext) -> Iterator[Check]:
    """Whether the engines' archives, package indexes and folders of wheels are there."""
    assert context.engine
    urls_by_name = _urls_by_name(context)
    names = [name for name in urls_by_name if name.startswith(tuple(_ALTERNATIVES))]
    folders = _by_path("wheelhouse", context.engine.wheel_folders, names)
    files = [file for file in context.engine.needs.archives if file.startswith("/")]
    archives = _by_path("archive", files, names)
    if not context.must_install_engine:
        for name in (*names, *folders, *archives):
            yield skipped(f"reach-{name}", "the engine is installed")
        return
    for name in names:
        alternative = _ALTERNATIVES[name.rstrip("-0123456789").removesuffix("-files")]
        strict = name.rstrip("-0123456789") in ("archive", "index", "wheelhouse")
        yield _url_check(context, name, urls_by_name[name], strict, "fail", alternative)
    for name, folder in folders.items():
        yield _wheel_folder(context, f"reach-{name}", folder)
    for name, file in archives.items():
        evidence = f"{file} is compared with its SHA-256 when it is installed"
        yield skipped(f"reach-{name}", evidence)


def _by_path(kind: str, paths: Iterable[str], taken: Sequence[str]) -> dict[str, str]:
    """Paths on the host by the names of their checks.

    The first source of a kind is named by the kind alone, all others also by their path.
    """
    found: dict[str, str] = {}
    for path in paths:
        found[f"{kind}:{path}" if found or kind in taken else kind] = path
    return found


def pip_index(context: CheckContext) -> Iterator[Check]:
    """Whether pip is configured with an index that uv does not use, as it runs with --no-config."""
    found, engine = context.answers.pip_index, context.engine
    indexes = engine.needs.package_indexes if engine else ()
    if found and any(not (one.index_url or one.wheelhouse) for one in indexes):
        yield warning(
            "pip-index",
            f"pip is configured to use {found}; the engine's installer does not read that",
            f"set the engine's index_url: {found}",
        )


def _wheel_folder(context: CheckContext, name: str, folder: str) -> Check:
    found = context.answers.wheels.get(folder)
    if not found:
        evidence = f"{folder} is not on the host" if found is None else f"{folder} holds no wheel"
        return stop(name, evidence, "copy all wheels of the engine there")
    return ok(name, f"{found} wheels in {folder}")


def hub(context: CheckContext) -> Iterator[Check]:
    """Whether the hub is reachable, where weights come from it and are not in the host's cache."""
    assert context.engine
    urls_by_name, pages = _urls_by_name(context), _hub_pages(context.needs)
    if not pages:
        offline = any(one.hub_folder for one in context.engine.weights)
        yield skipped(
            "reach-hub", "the engine stays offline" if offline else "weights come from a folder"
        )
    for name, url in urls_by_name.items():
        if name == "hub-files":
            yield _url_check(context, name, url, False, "warn", _HUB_ALTERNATIVE)
        elif name.startswith("hub-"):
            yield _hub_page(context, name, url, pages[url])


def _hub_page(context: CheckContext, name: str, url: str, weights: Sequence[Weights]) -> Check:
    """Whether a model's page on the hub answers; a warning only where the weights are cached."""
    if _has_no_page(context, name):
        return skipped(f"reach-{name}", f"{url} has no such page")
    whole = all(is_complete(cached_bytes(context, one), one) for one in weights)
    gravest: Outcome = "warn" if whole else "fail"
    return _gated(context, name, url, gravest, weights) or _url_check(
        context, name, url, True, gravest, _HUB_ALTERNATIVE
    )


def _has_no_page(context: CheckContext, name: str) -> bool:
    """Whether the model exists and has no config.json: then the hub answers 404.

    It answers 401 for a model that does not exist.
    """
    found = context.answers.urls.get(name)
    return found is not None and found.http_status == 404


def _gated(
    context: CheckContext, name: str, url: str, gravest: Outcome, weights: Sequence[Weights]
) -> Check | None:
    found = context.answers.urls.get(name)
    if found is None or found.http_status not in (401, 403):
        return None
    if all(one.hub_token for one in weights):
        return ok(f"reach-{name}", f"{url} wants a token, the engine's hub_token_file has one")
    return Check(
        f"reach-{name}",
        "",
        gravest,
        f"{url} answers HTTP {found.http_status}: the model is gated, or is not there",
        f"correct the model's name or {weights[0].setting}, or accept its licence on the hub and "
        "set the engine's hub_token_file",
    )


def driver_repository(context: CheckContext) -> Check:
    """Whether the vendor's repository is reachable, if the driver comes from there."""
    url = _urls_by_name(context).get("driver-repository")
    name = "reach-driver-repository"
    if url is None:
        will = installs_driver(context.report, context.needs)
        why = "nothing is loaded from it" if will else "no driver is to be installed"
        return skipped(name, why)
    alternative = (
        "set driver.mirror to a mirror (where signed modules are: driver.source: distribution)"
    )
    return _url_check(context, "driver-repository", url, True, "fail", alternative)


def distribution(context: CheckContext) -> Check:
    """Whether the distribution's repositories are reachable; apt can do without some of them."""
    name, urls_ = "reach-distribution", context.answers.distribution
    missing = " ".join(context.packages_missing)
    if not urls_:
        if not missing:
            return skipped(name, "no repository by URL is configured, and no package is missing")
        return warning(
            name,
            f"no repository by URL is configured, and packages are missing: {missing}",
            "see /etc/apt/sources.list.d",
        )
    strict = context.os_name in ("debian", "ubuntu")
    alternative = "change /etc/apt/sources.list.d to a mirror"
    found = [
        _url_check(context, f"distribution-{number}", url, strict, "warn", alternative)
        for number, url in enumerate(urls_, 1)
    ]
    bad = [check for check in found if check.outcome == "warn"]
    if not bad:
        return ok(name, f"{len(urls_)} repositories answer")
    evidence = "; ".join(check.evidence for check in bad)
    if missing and len(bad) == len(urls_):
        return stop(name, f"{evidence}; needed for {missing}", bad[0].remedy)
    return warning(name, evidence, bad[0].remedy)


def proxies(context: CheckContext) -> Iterator[Check]:
    """Whether proxies that are set for the user are lost under sudo."""
    own = {line.partition("=")[0].lower(): line for line in context.answers.proxies}
    roots = {line.partition("=")[0].lower() for line in context.answers.root_proxies}
    if not own:
        yield skipped("proxies", "none is set")
    elif context.answers.root and (lost := sorted(set(own) - roots)):
        yield warning(
            "proxies",
            f"{', '.join(own[name] for name in lost)} is set, but not for what sudo runs",
            'add to /etc/sudoers.d: Defaults env_keep += "http_proxy https_proxy no_proxy"',
        )
    else:
        yield ok("proxies", " ".join(own.values()))


def _url_check(
    context: CheckContext,
    name: str,
    url: str,
    strict: bool,
    outcome_if_not: Outcome,
    alternative: str,
) -> Check:
    """Whether a URL answered: `outcome_if_not` where it did not.

    With `strict` an answer of HTTP 400 or more is a failure too. `alternative` is what else a
    person can do.
    """
    found, check = context.answers.urls.get(name), f"reach-{name}"
    remedy = _REMEDY.replace("{else_}", alternative)
    if name in (hung.removeprefix("reach-") for hung in context.answers.hung):
        return Check(check, "", outcome_if_not, f"{url}: no answer in time", remedy)
    if found is None:
        return skipped(check, f"{url} was not asked for")
    if found.tool == "none":
        return skipped(check, "the host has neither curl nor python3")
    if found.exit_status or not found.http_status:
        return Check(
            check, "", outcome_if_not, f"{url}: {_failure(found)}", _remedy(found, url, remedy)
        )
    if found.http_status in (401, 407):
        return warning(
            check,
            f"{url} answers HTTP {found.http_status}",
            "put credentials into the hosts' /root/.netrc (407: into the proxy's URL)",
        )
    if strict and found.http_status >= 400:
        return Check(
            check,
            "",
            outcome_if_not,
            f"{url} answers HTTP {found.http_status}",
            f"correct the URL, or {alternative}",
        )
    return ok(check, url)


def _failure(found: UrlResult) -> str:
    message = found.message.removeprefix(f"curl: ({found.exit_status}) ")[:200]
    known = _FAILURES.get(found.exit_status, f"{found.tool} failed with {found.exit_status}")
    return f"{known}: {message}" if message else known


def _remedy(found: UrlResult, url: str, usual: str) -> str:
    own = _REMEDIES.get(found.exit_status)
    return own.replace("{url}", url) if own else usual
