"""The programs of the watchdog, each as one text that a host runs by its own Python. Pure."""

from pathlib import Path

from roles.host import PROBE, bundle

_HERE = Path(__file__).parent / "on_host"
_ON_HOST = {file.stem: file for file in _HERE.glob("*.py")}
_WATCHDOG = (
    *("units", "judge", "breaker", "steps", "files", "saved", "scrape", "agent", "exposition"),
    *("sight", "watchdog"),
)
_HELPER = ("units", "judge", "files", "evidence", "gpus", "helper")


def watchdog_program() -> str:
    """The program that watches; its argument is the configuration."""
    return _program(_WATCHDOG, "watch(sys.argv[1])")


def helper_program() -> str:
    """The program that root answers commands with; its argument is the configuration."""
    return _program(_HELPER, "serve_commands()")


def _program(modules: tuple[str, ...], last: str) -> str:
    end = f'\n\nif __name__ == "__main__":\n    {last}'
    return bundle([PROBE, *(_ON_HOST[name] for name in modules)], {}, end)
