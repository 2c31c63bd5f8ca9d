"""How an engine is installed: from where, beside which versions."""

import pytest

from roles.engine import EngineSettings
from roles.engine.facts import Installed, InstalledEngines
from roles.engine.install import engine_script, obsolete_versions, source_options


def test_the_folder_names_what_is_in_it(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text("a==1\n")
    one = EngineSettings(requirement="vllm[bench]==0.33.0")
    assert one.version_name.startswith("vllm-0.33.0-cuda-")
    assert one.version_name != EngineSettings(requirement="vllm==0.33.0", lock=lock).version_name
    before = EngineSettings(lock=lock).version_name
    lock.write_text("a==2\n")
    assert EngineSettings(lock=lock).version_name != before


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        (
            {"index_url": "https://pypi.example.com/simple"},
            ["--default-index", "https://pypi.example.com/simple"],
        ),
        (
            {"extra_index_urls": ["https://rocm.example.com/"]},
            ["--index", "https://rocm.example.com/"],
        ),
        ({"wheelhouse": "/srv/wheels"}, ["--no-index", "--find-links", "/srv/wheels"]),
    ],
)
def test_sources(settings: dict, expected: list[str]):
    assert source_options(EngineSettings.model_validate(settings)) == expected


def test_a_lock_is_installed_as_it_is(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text("vllm==0.33.0\n")
    script = engine_script(EngineSettings(lock=lock), [])
    assert '-r "$new/requirements.lock" --no-deps' in script
    assert "vllm==0.33.0" in engine_script(EngineSettings(), [])
    # Half-installed folders do not count: the mark comes last.
    assert script.splitlines()[-1] == 'touch "$new/.complete"'


@pytest.mark.parametrize(
    ("versions", "current", "keep", "expected"),
    [
        ([], None, 2, []),
        (["a"], "a", 2, []),
        (["a", "b"], "b", 2, ["a"]),
        (["a", "b", "c"], "c", 3, ["a"]),
        (["a", "b"], "a", 1, ["b"]),
        (["a", "b", "c"], "a", 2, ["b", "c"]),
        (["new"], "new", 1, []),
    ],
)
def test_old_versions_make_room_but_never_the_current(versions, current, keep, expected):
    assert obsolete_versions(versions, current, "new", keep) == expected


def test_the_fact_reads_what_its_command_prints():
    output = ["missing gcc", "version old", "version new", "current /opt/llm/engines/new"]
    assert InstalledEngines().process(output) == Installed(("old", "new"), "new", ("gcc",))
    assert InstalledEngines().process(["current "]) == Installed()
