"""Files of a run on the control machine."""

import os
from pathlib import Path


def replace_file(file: Path, text: str) -> None:
    """Write a file by a rename, so that a reader sees the old or the new text, never a part.

    Missing folders are created. Raises OSError; nothing is left of a file that was not written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Two runs at once must not write into one file.
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
