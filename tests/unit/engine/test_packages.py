"""How an engine is installed: from where, beside which versions, and nothing but what is locked."""

import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError
from pyinfra.api.exceptions import FactProcessError

from roles.engine import VllmSettings, deployment
from roles.engine.facts import InstalledEngines
from roles.engine.lock import entries, problem_of, shipped
from roles.engine.packages_install import engine_script, source_options
from roles.engine.state import Installed, missing_builds

UV = "uv==0.13.8"
HASH = "--hash=sha256:" + "0" * 64


def test_the_folder_names_what_is_in_it(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text(f"vllm==0.33.0 {HASH}\na==1 {HASH}\n{UV} {HASH}\n")
    one = VllmSettings(requirement="vllm[bench]==0.33.0")
    assert one.version_name.startswith("vllm-0.33.0-cuda-")
    assert one.version_name != VllmSettings(requirement="vllm==0.33.0", lock=lock).version_name
    other_index = VllmSettings(extra_index_urls=("https://rocm.example.com/",))
    assert other_index.version_name != VllmSettings().version_name
    before = VllmSettings(lock=lock).version_name
    lock.write_text(f"vllm==0.33.0 {HASH}\na==2 {HASH}\n{UV} {HASH}\n")
    assert VllmSettings(lock=lock).version_name != before


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
    assert source_options(VllmSettings.model_validate(settings)) == expected


def test_a_lock_is_installed_as_it_is(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text("vllm==0.33.0\n")
    script = engine_script(VllmSettings(lock=lock, allow_unhashed=True), "vllm --version")
    assert '-r "$new/requirements.lock" --no-deps' in script
    assert "--require-hashes" not in script
    # Half-installed folders do not count: the mark comes last.
    assert script.splitlines()[-1] == 'touch "$new/.complete"'


def test_the_usual_requirement_has_a_lock_with_hashes_of_everything():
    usual = VllmSettings()
    assert problem_of(usual.lock_text, usual.uv) == ""
    assert {usual.requirement, usual.uv} <= entries(usual.lock_text).keys()
    assert usual.missing is None and deployment(usual).installation(usual).stdin == usual.lock_text
    assert VllmSettings(allow_unhashed=True).lock_text == ""
    locks = VllmSettings.locks
    # Its builds are in another index.
    assert VllmSettings(device="rocm").lock_text == ""
    assert shipped(locks, "vllm==0.33.0", "uv==0.0.1") == shipped(locks, "vllm==0.0.1", UV) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"it has no {UV}"),
        (f"vllm==1 {HASH}\n", f"it has no {UV}"),
        (f"vllm==1\n{UV} {HASH}\n", "1 of its 2 packages have no hash (vllm==1)"),
        (f"vllm==1 {HASH[:-1]}\n{UV} {HASH}\n", "1 of its 2 packages have no hash"),
        (f"vllm==1 --hash=md5:{'0' * 64}\n{UV} {HASH}\n", "1 of its 2 packages have no hash"),
        (f"vllm @ https://evil/v.whl\n{UV} {HASH}\n", "1 of its 2 packages have no hash"),
        (f"--index-url http://evil\n{UV} {HASH}\n", "1 of its 2 packages have no hash"),
        (f"vllm==1 # {HASH}\n{UV} {HASH}\n", "1 of its 2 packages have no hash"),
    ],
)
def test_a_lock_that_leaves_something_open_is_refused(tmp_path: Path, text: str, message: str):
    lock = tmp_path / "lock"
    lock.write_text(text)
    with pytest.raises(ValidationError) as caught:
        VllmSettings(lock=lock)
    assert message in str(caught.value)
    assert "python -m roles.engine lock vllm==0.33.0" in str(caught.value)


def test_a_lock_without_hashes_is_taken_where_that_is_said(tmp_path: Path):
    lock = tmp_path / "lock"
    lock.write_text("vllm==0.33.0\n")
    assert VllmSettings(lock=lock, allow_unhashed=True).lock_text == "vllm==0.33.0\n"


def test_builds_that_share_a_folder_are_installed_once():
    """Two services may differ in their replicas' environment alone."""
    builds = [VllmSettings(environment=each) for each in ({}, {"OMP_NUM_THREADS": "1"})]
    wanted = [deployment(one).installation(one) for one in builds]
    found = missing_builds(wanted, Installed(("vllm-0.32.0-cuda-0",)))
    assert [one.version_name for one in found] == [builds[0].version_name]
    assert missing_builds(wanted, Installed((builds[0].version_name,))) == ()


def test_the_fact_asks_for_whole_versions_only(tmp_path):
    for name, whole in (("old", True), ("half", False), ("new", True)):
        (tmp_path / name).mkdir()
        if whole:
            (tmp_path / name / ".complete").touch()
    (tmp_path / "current").symlink_to("old")
    command = InstalledEngines().command(packages=["no-such-package"])
    output = subprocess.check_output(
        ["sh", "-c", command.replace("/opt/llm/engines", str(tmp_path))], text=True
    )
    found = InstalledEngines().process(output.splitlines())
    assert sorted(found.versions) == ["new", "old"]
    assert found.missing_packages == ("no-such-package",)


def test_the_fact_reads_what_its_command_prints():
    output = [
        *("@@@ engines", "@@ missing", "gcc"),
        *("@@ versions", "/opt/llm/engines/old", "/opt/llm/engines/new", "@@ end"),
    ]
    assert InstalledEngines().process(output) == Installed(("old", "new"), ("gcc",))
    nothing = ["@@@ engines", "@@ missing", "@@ versions", "@@ end"]
    assert InstalledEngines().process(nothing) == Installed()


@pytest.mark.parametrize(
    "output",
    [
        ["@@@ sudo", "@@ end"],
        ["@@@ engines", "@@ missing", "@@ end"],
        ["@@@ engines", "@@ missing", "@@ versions", "/opt/llm/engines/old"],
    ],
)
def test_an_answer_that_is_cut_short_is_no_bare_host(output: list[str]):
    with pytest.raises(FactProcessError, match="about its engines"):
        InstalledEngines().process(output)


def test_a_lock_for_cuda_is_none_for_other_devices(tmp_path: Path):
    lock = tmp_path / "lock.txt"
    lock.write_text(f"vllm==0.33.0 {HASH}\n{UV} {HASH}\nnvidia-cublas==13.1.1.3 {HASH}\n")
    given = {"requirement": "vllm==0.33.0", "lock": str(lock)}
    assert VllmSettings.model_validate(given).lock_text
    with pytest.raises(ValidationError, match=r"nvidia-cublas.*for CUDA.*--device rocm > FILE"):
        VllmSettings.model_validate(given | {"device": "rocm"})
    # Interfaces to drivers are on CPUs, too.
    lock.write_text(f"vllm==0.33.0 {HASH}\n{UV} {HASH}\nnvidia-ml-py==13.615.71 {HASH}\n")
    assert VllmSettings.model_validate(given | {"device": "cpu"}).lock_text
    missing = VllmSettings.model_validate({"device": "cpu"}).missing
    assert missing is not None and "--device cpu" in missing[1]
