"""Inventory files are read without pyinfra as pyinfra reads them, or left to it."""

from pathlib import Path

import pytest

from roles.declaration import DeclarationError
from roles.declaration.inventory import read
from roles.declaration.plain import read_plain

ROOT = Path(__file__).parents[3]
HOST = '("a", {"ssh_hostname": "10.0.0.1", "llm": {"gpus": "1x NVIDIA L4"}})'
FILES = {
    "a list": f'gpu_hosts = [{HOST}, "b"]',
    "data of a group": f'gpu_hosts = ([{HOST}, "b"], {{"llm": {{"gpus": "2x NVIDIA L4"}}}})',
    "later groups win": """
one = (["a"], {"llm": {"tuning": {"dev_shm_gib": 1, "power_limit_w": 2}}})
two = (["a"], {"llm": {"tuning": {"dev_shm_gib": 3}}})
""",
    "all": f'gpu_hosts = ["a"]\nall = ([{HOST}, "b"], {{"llm": {{"services": []}}}})',
    "a group of the file's name": 'site = (["a"], {"llm": {"x": 1}})\ngpu_hosts = ["a", "b"]',
    "what is no group": '_hidden = ["c"]\nnumbers = [1]\nname = "d"\ngpu_hosts = ["a"]',
    "data in several places": f'one = [{HOST}]\ntwo = [("a", {{"llm": {{"drained": True}}}})]',
    "no host": "gpu_hosts = []",
}


def written(folder: Path, text: str) -> Path:
    file = folder / "site.py"
    file.write_text(f"from roles.fleet.inventory import check\n{text}\ncheck(__file__)\n")
    return file


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_file_is_read_as_pyinfra_reads_it(tmp_path: Path, text: str):
    file = written(tmp_path, text)
    plain, whole = read_plain(file), read(str(file))
    assert plain == whole
    assert plain is not None and list(plain.hosts) == list(whole.hosts)


@pytest.mark.parametrize("name", ["prod", "staging", "lab"])
def test_the_projects_inventories_need_no_pyinfra(name: str):
    file = ROOT / "inventories" / f"{name}.py"
    assert read_plain(file) == read(str(file))


@pytest.mark.parametrize(
    "text",
    [
        'gpu_hosts = ["@local"]',
        "gpu_hosts = [1 / 0]",
        "gpu_hosts = [",
        'gpu_hosts = [("@docker/x", {})]',
    ],
)
def test_what_only_pyinfra_can_read_is_left_to_it(tmp_path: Path, text: str):
    assert read_plain(written(tmp_path, text)) is None


def test_files_of_group_data_are_left_to_pyinfra(tmp_path: Path):
    (tmp_path / "group_data").mkdir()
    assert read_plain(written(tmp_path, 'gpu_hosts = ["a"]')) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('gpu_hosts = ["a", "a"]', "gpu_hosts: 'a' is listed 2 times"),
        ('gpu_hosts = [("a", {"llm": 1})]', "llm: must be a mapping"),
    ],
)
def test_contradictions_are_named_by_both(tmp_path: Path, text: str, problem: str):
    file = written(tmp_path, text)
    with pytest.raises(DeclarationError, match=problem):
        read_plain(file)
    with pytest.raises(DeclarationError, match=problem):
        read(str(file))
