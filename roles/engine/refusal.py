"""Why an engine does not start on a card, and what to do instead."""

from dataclasses import dataclass

from roles.engine.params import Argument


@dataclass(frozen=True)
class Instead:
    """What to do instead: in words, and where it is a change of the service, as its settings.

    `options` are options of the engine, which stay beside those that the service has; `comment`
    says what the settings are.
    """

    words: str
    settings: tuple[tuple[str, Argument], ...] = ()
    options: tuple[tuple[str, Argument], ...] = ()
    comment: str = ""


@dataclass(frozen=True)
class Refusal:
    """Why an engine does not start on a card, regardless of its memory."""

    problem: str
    instead: Instead

    def __str__(self) -> str:
        return f"{self.problem}; {self.instead.words}"
