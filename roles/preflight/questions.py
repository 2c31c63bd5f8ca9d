"""The shell command that asks a host everything at once, from what it will need. Pure."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_HERE = Path(__file__).parent
_USER, _ROOT, _FETCH = (
    _HERE.joinpath(name).read_text(encoding="utf-8")
    for name in ("ask.sh", "ask_root.sh", "fetch.py")
)


@dataclass(frozen=True)
class Questions:
    """What is asked for by name; `urls` maps stable names to URLs without credentials."""

    python: str = "python3"
    engine: str = ""
    wheelhouse: str = ""
    folders: tuple[str, ...] = ("/",)
    packages: tuple[str, ...] = ()
    hub_folders: tuple[str, ...] = ()
    weights_folders: tuple[str, ...] = ()
    urls: tuple[tuple[str, str], ...] = field(default=())


def command(questions: Questions) -> str:
    """The whole command, for `sh -c`."""
    root = _assignments(
        HUB_FOLDERS="\n".join(questions.hub_folders),
        WEIGHTS_FOLDERS="\n".join(questions.weights_folders),
    )
    user = _assignments(
        PYTHON=questions.python,
        ENGINE=questions.engine,
        WHEELHOUSE=questions.wheelhouse,
        FOLDERS="\n".join(dict.fromkeys(questions.folders)),
        PACKAGES=" ".join(dict.fromkeys(questions.packages)),
        URLS="\n".join(f"{name} {url}" for name, url in questions.urls),
        ROOT_SCRIPT=f"{root}\n{_ROOT}",
        FETCH=_FETCH,
    )
    return f"{user}\n{_USER}"


def _assignments(**variables: str) -> str:
    return "\n".join(_assignment(variables.items()))


def _assignment(variables: Iterable[tuple[str, str]]) -> Iterable[str]:
    return (f"{name}={shlex.quote(value)}" for name, value in variables)
