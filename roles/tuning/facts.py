"""The tuning of a host, asked separately or again after a change."""

from pyinfra.api import FactBase

from roles.hardware import PART as HARDWARE
from roles.hardware import parse_report
from roles.host.facts import reading
from roles.host.question import parse_answers, question
from roles.tuning import state


class TuningState(FactBase[state.HostTuning | None]):
    """Current sizes, limits and slices, and tuning's own files, asked as root in one command."""

    @staticmethod
    def default() -> state.HostTuning | None:
        return None

    def command(self) -> str:
        return question([HARDWARE, state.PART])

    def process(self, output: list[str]) -> state.HostTuning:
        with reading("the host's settings cannot be read"):
            answers = parse_answers(output)
            report = parse_report(answers.get(HARDWARE.name, {}))
            return state.parse_state(answers.get(state.PART.name, {}), report)
