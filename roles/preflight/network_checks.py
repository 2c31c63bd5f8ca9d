"""Does the host reach what it loads from: packages, weights, drivers. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from roles.checks import Check, Outcome
from roles.engine import HUB, PackageIndex
from roles.hardware import HardwareReport
from roles.preflight.answers import UrlResult
from roles.preflight.case import CheckContext, ok, skipped, stop, unique_names, warning
from roles.preflight.disk_checks import cached_bytes, is_complete
from roles.preflight.driver_need import installs_driver, repository_url
from roles.preflight.needs import PYPI, HostNeeds, Weights

# Where PyPI's files are, and the hub's: other names than those that list them, which firewalls
# forget. Source: PyPI's simple index; the hub's /.well-known/meta.json.
_PYPI_FILES = "https://files.pythonhosted.org/"
_HUB_FILES = "https://transfer.xethub.hf.co/"

# curl's exit statuses (curl.1), as far as they tell something to a person.
_FAILURES = {
    5: "the proxy's name cannot be resolved",
    6: "its name cannot be resolved (DNS)",
    7: "the connection was refused, or there is no way there",
    28: "no answer in time",
    35: "TLS failed",
    47: "it redirects without end",
    52: "an empty answer",
    56: "the connection broke (a proxy that refuses?)",
    60: "its TLS certificate is not trusted",
    97: "the proxy failed",
    124: "no answer in time",
    137: "no answer in time",
}
_REMEDIES = {
    5: "mend http_proxy and https_proxy in /etc/environment on the host",
    6: "see /etc/resolv.conf on the host (resolvectl status); behind a proxy set https_proxy in "
    "/etc/environment",
    35: "see whether a firewall on the way breaks TLS: curl -v {url}",
    60: "put the authority's certificate into /usr/local/share/ca-certificates and run "
    "sudo update-ca-certificates; see the host's clock",
}
_REMEDY = (
    "open the way in the firewall, set https_proxy in /etc/environment on the host, or {else_}"
)


_INDEX = "set the engine's index_url to a mirror, or its wheelhouse to a folder with all wheels"
_HUB_ALTERNATIVE = "set HF_ENDPOINT in the engine's environment to a mirror, or weights to a folder"
# What else can be done where an engine's source is out of reach.
_ALTERNATIVES = {
    "archive": "set the engine's archive to a URL that hosts reach, or to a file on the hosts",
    "index": _INDEX,
    "extra-index": _INDEX,
    "wheelhouse": _INDEX,
}


def urls(needs: HostNeeds) -> tuple[tuple[str, str], ...]:
    """What a host is to ask for, by the names of the checks."""
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
    # pip loads uv from there first, so it must have it.
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
    """The URLs of models on their hubs, with the weights that come from each."""
    engine, pages = needs.installed_engine, dict[str, list[Weights]]()
    for one in engine.weights if engine else ():
        if one.hub and one.hub_folder:
            is_hub = "modelscope" not in one.hub
            page = f"{one.source}/resolve/main/config.json" if is_hub else f"models/{one.source}"
            pages.setdefault(f"{one.hub}/{page}", []).append(one)
    return pages


def driver_urls(report: HardwareReport, needs: HostNeeds) -> tuple[tuple[str, str], ...]:
    """What a host on which a driver is to be installed must reach, which its report tells."""
    url = repository_url(report, needs)
    return (("driver-repository", url),) if url else ()


def network_checks(case: CheckContext) -> Iterator[Check]:
    """Every check of what the host reaches."""
    if case.engine:
        yield from engine_sources(case)
        yield from hub(case)
        yield from pip_index(case)
    if case.needs.driver:
        yield driver_repository(case)
    yield distribution(case)
    yield from proxies(case)


def _urls_by_name(case: CheckContext) -> dict[str, str]:
    return dict((*urls(case.needs), *driver_urls(case.report, case.needs)))


def engine_sources(case: CheckContext) -> Iterator[Check]:
    """The archive, the package index, or the folder or URL that stands for it."""
    assert case.engine
    asked = _urls_by_name(case)
    names = [name for name in asked if name.startswith(tuple(_ALTERNATIVES))]
    folders = _by_path("wheelhouse", case.engine.wheel_folders, names)
    files = [file for file in case.engine.needs.archives if file.startswith("/")]
    archives = _by_path("archive", files, names)
    if not case.must_install_engine:
        for name in (*names, *folders, *archives):
            yield skipped(f"reach-{name}", "the engine is installed")
        return
    for name in names:
        other = _ALTERNATIVES[name.rstrip("-0123456789").removesuffix("-files")]
        strict = name.rstrip("-0123456789") in ("archive", "index", "wheelhouse")
        yield _url_check(case, name, asked[name], strict, "fail", other)
    for name, folder in folders.items():
        yield _wheel_folder(case, f"reach-{name}", folder)
    for name, file in archives.items():
        seen = f"{file} is compared with its SHA-256 when it is installed"
        yield skipped(f"reach-{name}", seen)


def _by_path(kind: str, paths: Iterable[str], taken: Sequence[str]) -> dict[str, str]:
    """Paths on the host by the names of their checks: all but the first source of a kind are named
    by their path."""
    found: dict[str, str] = {}
    for path in paths:
        found[f"{kind}:{path}" if found or kind in taken else kind] = path
    return found


def pip_index(case: CheckContext) -> Iterator[Check]:
    """An index that pip knows and uv (--no-config) does not."""
    found, engine = case.answers.pip_index, case.engine
    indexes = engine.needs.package_indexes if engine else ()
    if found and any(not (one.index_url or one.wheelhouse) for one in indexes):
        yield warning(
            "pip-index",
            f"pip is configured to use {found}; the engine's installer does not read that",
            f"set the engine's index_url: {found}",
        )


def _wheel_folder(case: CheckContext, name: str, folder: str) -> Check:
    found = case.answers.wheels.get(folder)
    if not found:
        seen = f"{folder} is not on the host" if found is None else f"{folder} holds no wheel"
        return stop(name, seen, "copy all wheels of the engine there")
    return ok(name, f"{found} wheels in {folder}")


def hub(case: CheckContext) -> Iterator[Check]:
    """The model hub, if weights come from it; they may be in the host's cache already."""
    assert case.engine
    asked, pages = _urls_by_name(case), _hub_pages(case.needs)
    if not pages:
        offline = any(one.hub_folder for one in case.engine.weights)
        yield skipped(
            "reach-hub", "the engine stays offline" if offline else "weights come from a folder"
        )
    for name, url in asked.items():
        if name == "hub-files":
            yield _url_check(case, name, url, False, "warn", _HUB_ALTERNATIVE)
        elif name.startswith("hub-"):
            yield _hub_page(case, name, url, pages[url])


def _hub_page(case: CheckContext, name: str, url: str, weights: Sequence[Weights]) -> Check:
    """A model's page, which no engine needs that has these weights whole."""
    if _has_no_page(case, name):
        return skipped(f"reach-{name}", f"{url} has no such page")
    whole = all(is_complete(cached_bytes(case, one), one) for one in weights)
    gravest: Outcome = "warn" if whole else "fail"
    has_token = all(one.hub_token for one in weights)
    return _gated(case, name, url, gravest, has_token) or _url_check(
        case, name, url, True, gravest, _HUB_ALTERNATIVE
    )


def _has_no_page(case: CheckContext, name: str) -> bool:
    """The hub answers 401 for a model that is not there, and 404 for one without config.json."""
    found = case.answers.urls.get(name)
    return found is not None and found.http_status == 404


def _gated(
    case: CheckContext, name: str, url: str, gravest: Outcome, has_token: bool
) -> Check | None:
    found = case.answers.urls.get(name)
    if found is None or found.http_status not in (401, 403):
        return None
    if has_token:
        return ok(f"reach-{name}", f"{url} wants a token, the engine's hub_token_file has one")
    return Check(
        f"reach-{name}",
        "",
        gravest,
        f"{url} answers HTTP {found.http_status}: the model is gated, or is not there",
        "correct the model's name or services[].weights, or accept its licence on the hub and set "
        "the engine's hub_token_file",
    )


def driver_repository(case: CheckContext) -> Check:
    """The vendor's repository, if a driver comes from there."""
    asked = _urls_by_name(case).get("driver-repository")
    name = "reach-driver-repository"
    if asked is None:
        will = installs_driver(case.report, case.needs)
        why = "nothing is loaded from it" if will else "no driver is to be installed"
        return skipped(name, why)
    other = "set driver.mirror to a mirror (where signed modules are: driver.source: distribution)"
    return _url_check(case, "driver-repository", asked, True, "fail", other)


def distribution(case: CheckContext) -> Check:
    """The distribution's repositories. apt goes on without one that does not answer."""
    name, urls_ = "reach-distribution", case.answers.distribution
    missing = " ".join(case.packages_missing)
    if not urls_:
        if not missing:
            return skipped(name, "no repository by URL is configured, and no package is missing")
        return warning(
            name,
            f"no repository by URL is configured, and packages are missing: {missing}",
            "see /etc/apt/sources.list.d",
        )
    strict = case.os_name in ("debian", "ubuntu")
    other = "change /etc/apt/sources.list.d to a mirror"
    found = [
        _url_check(case, f"distribution-{number}", url, strict, "warn", other)
        for number, url in enumerate(urls_, 1)
    ]
    bad = [check for check in found if check.outcome == "warn"]
    if not bad:
        return ok(name, f"{len(urls_)} repositories answer")
    seen = "; ".join(check.evidence for check in bad)
    if missing and len(bad) == len(urls_):
        return stop(name, f"{seen}; needed for {missing}", bad[0].remedy)
    return warning(name, seen, bad[0].remedy)


def proxies(case: CheckContext) -> Iterator[Check]:
    """Proxies that the user has and sudo takes away."""
    own = {line.partition("=")[0].lower(): line for line in case.answers.proxies}
    roots = {line.partition("=")[0].lower() for line in case.answers.root_proxies}
    if not own:
        yield skipped("proxies", "none is set")
    elif case.answers.root and (lost := sorted(set(own) - roots)):
        yield warning(
            "proxies",
            f"{', '.join(own[name] for name in lost)} is set, but not for what sudo runs",
            'add to /etc/sudoers.d: Defaults env_keep += "http_proxy https_proxy no_proxy"',
        )
    else:
        yield ok("proxies", " ".join(own.values()))


def _url_check(
    case: CheckContext, name: str, url: str, strict: bool, outcome_if_not: Outcome, alternative: str
) -> Check:
    """Whether a URL answered, if `strict` with less than HTTP 400; `outcome_if_not` is for where not."""
    found, check = case.answers.urls.get(name), f"reach-{name}"
    remedy = _REMEDY.replace("{else_}", alternative)
    if name in (hung.removeprefix("reach-") for hung in case.answers.hung):
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
    said = found.message.removeprefix(f"curl: ({found.exit_status}) ")[:200]
    known = _FAILURES.get(found.exit_status, f"{found.tool} failed with {found.exit_status}")
    return f"{known}: {said}" if said else known


def _remedy(found: UrlResult, url: str, usual: str) -> str:
    own = _REMEDIES.get(found.exit_status)
    return own.replace("{url}", url) if own else usual
