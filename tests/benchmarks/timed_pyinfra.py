"""pyinfra with a clock: `python timed_pyinfra.py FILE ARGUMENTS…` writes where its time goes.

FILE gets one JSON object: seconds of the whole run and of its phases, and of the questions (facts)
that each host was asked in each phase, by their names.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from pyinfra.api import facts
from pyinfra_cli import cli

PHASES = {"connect_all": "connecting", "_handle_commands": "preparing", "run_ops": "operations"}


class Clock:
    """Seconds of phases and of questions so far."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.phases: dict[str, float] = {}
        self.questions: dict[str, dict[str, dict[str, float]]] = {
            phase: defaultdict(lambda: defaultdict(float)) for phase in PHASES.values()
        }
        self.phase = "connecting"

    def phase_of(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function of a phase, which is timed."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.phase, began = name, time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                self.phases[name] = time.monotonic() - began

        return timed

    def question(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """pyinfra's function that asks a host, timed by host and fact."""

        @wraps(function)
        def timed(state: Any, host: Any, cls: type, *args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            try:
                return function(state, host, cls, *args, **kwargs)
            finally:
                asked = self.questions[self.phase][host.name]
                asked[cls.__name__] += time.monotonic() - began

        return timed

    def write(self, file: Path) -> None:
        """Write what was timed."""
        whole = time.monotonic() - self.start
        text = json.dumps({"whole": whole, "phases": self.phases, "questions": self.questions})
        file.write_text(text)


def main(file: Path) -> None:
    """Run pyinfra's command line."""
    clock = Clock()
    for name, phase in PHASES.items():
        setattr(cli, name, clock.phase_of(phase, getattr(cli, name)))
    facts._get_fact = clock.question(facts._get_fact)
    try:
        cli.cli()
    finally:
        clock.write(file)


if __name__ == "__main__":
    written = Path(sys.argv.pop(1))
    main(written)
