"""The log file of one run, which also holds what is not shown on the screen."""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import click

LOGS_KEPT = 50
_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}\.log")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(eq=False)
class RunLog:
    """The log of a run; lines are kept in memory until the run has an id and a folder.

    `secrets` are replaced by asterisks.
    """

    path: Path | None = None
    secrets: Collection[str] = field(default=(), repr=False)
    _kept: list[str] = field(default_factory=list)
    _file: TextIO | None = None

    def open(self, folder: Path, run_id: str, secrets: Collection[str]) -> None:
        """Open FOLDER/RUN_ID.log, which only its owner can read, and remove the oldest logs.

        Raises OSError.
        """
        self.secrets = [one for one in secrets if one]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{run_id}.log"
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        self._file = os.fdopen(number, "w", encoding="utf-8", buffering=1)
        self.path = path
        remove_oldest(folder)
        self._file.write(harmless("".join(self._kept), self.secrets))
        self._kept.clear()

    def write(self, text: str) -> None:
        """Append text; it is dropped if the file cannot be written any more."""
        if self._file is None:
            self._kept.append(text)
            return
        try:
            self._file.write(harmless(text, self.secrets))
        except (OSError, ValueError):
            self._file = None


def harmless(text: str, secrets: Collection[str]) -> str:
    """A text without colours and secrets, with control characters escaped."""
    text = click.unstyle(text)
    for secret in secrets:
        text = text.replace(secret, "*****")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def remove_oldest(folder: Path, kept: int = LOGS_KEPT) -> None:
    """Remove all but the newest `kept` logs of runs; other files stay."""
    logs = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    for path in logs[:-kept]:
        path.unlink(missing_ok=True)
