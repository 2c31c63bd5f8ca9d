"""The log of one run: all that was shown, and all that was not, in a file of its own."""

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
    """Lines are kept until the run has an id and a folder; then they go to its file at once.

    `secrets` are hidden wherever they stand.
    """

    path: Path | None = None
    secrets: Collection[str] = field(default=(), repr=False)
    _kept: list[str] = field(default_factory=list)
    _file: TextIO | None = None

    def open(self, folder: Path, run_id: str, secrets: Collection[str]) -> None:
        """Begin FOLDER/RUN_ID.log, which its owner alone can read; the oldest logs go away.

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
        """Add text; where the file cannot be written any more it is dropped."""
        if self._file is None:
            self._kept.append(text)
            return
        try:
            self._file.write(harmless(text, self.secrets))
        except (OSError, ValueError):
            self._file = None


def harmless(text: str, secrets: Collection[str]) -> str:
    """Text without colours and secrets, and with control characters escaped."""
    text = click.unstyle(text)
    for secret in secrets:
        text = text.replace(secret, "*****")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def remove_oldest(folder: Path, kept: int = LOGS_KEPT) -> None:
    """Leave the newest logs of runs, so many; other files stay."""
    logs = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    for path in logs[:-kept]:
        path.unlink(missing_ok=True)
