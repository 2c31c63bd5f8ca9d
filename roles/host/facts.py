"""The state of our files on a host, and its answers to one question of several roles.

A role exposes a `Part` (or a function that makes one) and a pure parser of its sections. A run asks
all parts at once, in one SSH command, without pyinfra's sudo:

    parts = (hardware.PART, driver.PART, tuning.PART, *preflight.parts(needs))
    answers = host.get_fact(Answers, parts=parts, _sudo=False, _timeout=TIMEOUT_S)
    report = hardware.parse_report(answers.get(hardware.PART.name, {}))
    state = driver.parse_state(answers.get(driver.PART.name, {}), report)
    tuned = tuning.parse_state(answers.get(tuning.PART.name, {}), report)
    found = parse_preflight(answers)

`answers` is None if the host gave none; pyinfra has then failed it. A parser raises ValueError if
its part is cut short, or was not asked because root was needed: preflight's answers say why.
Answers are not renewed: after a change the role's own fact (`roles.hardware.facts`, …) asks its
part again. `follow_up_parts(report, needs)` of preflight has parts if a driver will be installed: a
second question asks them, and its answers are added.
"""

import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from roles.checks import clean
from roles.host.hostfile import parse_states
from roles.host.question import Part, parse_answers, question

# For a host that hangs as a whole: the question has its own limits.
TIMEOUT_S = 180
_MAX_ERROR_LENGTH = 500


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Inside, a host's output is parsed: any error fails this host alone.

    Another exception would end the run for every host, and a hostile text may raise anything.
    """
    try:
        yield
    except Exception as error:
        # pyinfra prints the cause of an error as it is, so there must be none.
        raise FactProcessError(unreadable(what, error)) from None


def unreadable(what: str, error: Exception) -> str:
    """Why the answer of a host cannot be read, in one line that a terminal only prints."""
    reason = str(error) if isinstance(error, ValueError) else f"not as expected ({error!r})"
    return clean(f"{what}: {reason}"[:_MAX_ERROR_LENGTH])


class Answers(FactBase[dict[str, dict[str, str]] | None]):
    """A host's answers to the parts of one question, by part and label, in one command."""

    @staticmethod
    def default() -> dict[str, dict[str, str]] | None:
        return None

    def command(self, parts: Iterable[Part]) -> str:
        return question(parts)

    def process(self, output: list[str]) -> dict[str, dict[str, str]]:
        with reading("the host's answers"):
            return parse_answers(output)


class FileStates(FactBase[dict[str, str]]):
    """Mode, owner, group and SHA-256 of each path that is a regular file, in one command."""

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self, paths: list[str]) -> str:
        quoted = " ".join(shlex.quote(path) for path in paths)
        return (
            f'for f in {quoted}; do [ -f "$f" ] && '
            'printf "%s %s %s\\n" "$(stat -c "%a %U %G" -- "$f")" '
            '"$(sha256sum < "$f" | cut -d" " -f1)" "$f"; done; true'
        )

    def process(self, output: list[str]) -> dict[str, str]:
        with reading("the host's files"):
            return parse_states(output)
