"""What tuning finds on a host that is asked for nothing else, or again after a change."""

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from roles.hardware import PART as HARDWARE
from roles.hardware import parse_report
from roles.host.question import parse_answers, question
from roles.tuning import state


class TuningState(FactBase[state.TuningState | None]):
    """Sizes, limits and slices as they are, with tuning's own files, as root in one command."""

    @staticmethod
    def default() -> state.TuningState | None:
        return None

    def command(self) -> str:
        return question([HARDWARE, state.PART])

    def process(self, output: list[str]) -> state.TuningState:
        answers = parse_answers(output)
        try:
            report = parse_report(answers.get(HARDWARE.name, {}))
            return state.parse_state(answers.get(state.PART.name, {}), report)
        # Any other exception would end the run for every host.
        except ValueError as error:
            raise FactProcessError(f"the host's settings cannot be read: {error}") from error
