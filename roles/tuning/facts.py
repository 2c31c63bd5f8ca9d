"""What tuning finds on a host, in one command."""

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from roles.host.facts import FileStates, parse_state
from roles.tuning import state
from roles.tuning.render import SCRIPT, UNIT


class TuningState(FactBase[state.TuningState | None]):
    """Sizes, limits and slices as they are, with tuning's own files."""

    @staticmethod
    def default() -> state.TuningState | None:
        return None

    def command(self) -> str:
        files = FileStates().command([SCRIPT, UNIT])
        return f"{{ {files}; }} | sed 's/^/@@file /'\n{state.SCRIPT}\ntrue"

    def process(self, output: list[str]) -> state.TuningState:
        marked = [line for line in output if line.startswith("@@file ")]
        files = dict(parse_state(line.removeprefix("@@file ")) for line in marked)
        try:
            return state.parse_state([line for line in output if line not in marked], files)
        # Any other exception would end the run for every host.
        except ValueError as error:
            raise FactProcessError(str(error)) from error
