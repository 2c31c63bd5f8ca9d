"""The files that inventories of the table name, made once."""

from pathlib import Path

import pytest

from tests.unit.inputs import files


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good files and wrong ones; see `files`."""
    made = tmp_path_factory.mktemp("inputs")
    files.make(made)
    return made
