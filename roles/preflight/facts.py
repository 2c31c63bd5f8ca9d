"""What a host says before anything is changed on it, as a pyinfra fact."""

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from roles.preflight import answers
from roles.preflight.questions import Questions, command


class Answers(FactBase[answers.Answers | None]):
    """All answers in one command, asked as the ordinary user."""

    @staticmethod
    def default() -> answers.Answers | None:
        return None

    def command(self, questions: Questions) -> str:
        return command(questions)

    def process(self, output: list[str]) -> answers.Answers:
        try:
            return answers.parse_answers(output)
        # Any other exception would end the run for every host.
        except ValueError as error:
            raise FactProcessError(str(error)) from error
