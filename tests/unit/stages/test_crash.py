"""Errors that end a run are shown in our own words."""

import pytest
from pyinfra_cli.exceptions import WrappedError

from roles.fleet.checked import RefusedError
from roles.stages.crash import show_crashes_calmly


def test_a_refusal_begins_with_its_own_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(WrappedError, "show", WrappedError.show)
    show_crashes_calmly(lambda error: False, None)
    try:
        raise RefusedError("balancer.engine_key_file: is not there; copy it")
    except RefusedError as error:
        WrappedError(error).show()
    assert capsys.readouterr().err.startswith("balancer.engine_key_file: ")
