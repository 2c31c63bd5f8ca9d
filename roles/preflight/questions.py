"""Preflight's parts of the one question to a host, made from what the host will need. Pure."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from roles.host import Part
from roles.host.paths import DEPLOY_LOCKS

_HERE = Path(__file__).parent
_USER, _ROOT, _REACH, _FETCH = (
    _HERE.joinpath(name).read_text(encoding="utf-8")
    for name in ("ask.sh", "ask_root.sh", "reach.sh", "fetch.py")
)
# Of paths and programs that SELinux or AppArmor may deny us something.
_OUR_WORDS = ("/opt/llm", "/var/(lib|cache)/llm", "/etc/llm", "llm-engine", "nvidia")
USER, ROOT, FOLLOW_UP = "preflight", "preflight-root", "preflight-reach"


@dataclass(frozen=True)
class Questions:
    """What the scripts look up on the host.

    `urls` are pairs of a check's name and a URL without credentials. `sites` has the file by which
    each program serves that could be our balancer.
    """

    pythons: tuple[str, ...] = ()
    engine: str = ""
    wheel_folders: tuple[str, ...] = ()
    folders: tuple[str, ...] = ("/",)
    packages: tuple[str, ...] = ()
    hub_folders: tuple[str, ...] = ()
    weights_folders: tuple[str, ...] = ()
    urls: tuple[tuple[str, str], ...] = field(default=())
    sites: Mapping[str, str] = field(default_factory=dict)


def parts_of(questions: Questions) -> tuple[Part, Part]:
    """The part that runs as the ordinary user, and the part that runs as root."""
    user = _assignments(
        ENGINE=questions.engine,
        PYTHONS="\n".join(questions.pythons),
        WHEEL_FOLDERS="\n".join(questions.wheel_folders),
        FOLDERS="\n".join(dict.fromkeys(questions.folders)),
        PACKAGES=" ".join(dict.fromkeys(questions.packages)),
        URLS=_lines(questions.urls),
    )
    root = _assignments(
        HUB_FOLDERS="\n".join(questions.hub_folders),
        WEIGHTS_FOLDERS="\n".join(questions.weights_folders),
        LOCKS="\n".join(DEPLOY_LOCKS),
        SITES=_lines(tuple(questions.sites.items())),
        DENIED="|".join((*_OUR_WORDS, *questions.sites)),
    )
    return (
        Part(USER, f"{user}\n{_reach(questions.pythons)}\n{_USER}"),
        Part(ROOT, f"{root}\n{_ROOT}", root=True),
    )


def url_part(urls: tuple[tuple[str, str], ...], pythons: tuple[str, ...]) -> Part:
    """The part for URLs that are known only once the host has reported its hardware."""
    assignments = _assignments(URLS=_lines(urls))
    return Part(FOLLOW_UP, f"{assignments}\n{_reach(pythons)}\nbegin_urls\nprint_results")


def _reach(pythons: tuple[str, ...]) -> str:
    # Hosts without curl use Python.
    python = pythons[0] if pythons else "python3"
    return f"{_assignments(PYTHON=python, FETCH=_FETCH)}\n{_REACH}"


def _lines(urls: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(f"{name} {url}" for name, url in urls)


def _assignments(**variables: str) -> str:
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
