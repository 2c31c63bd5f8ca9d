"""Files that settings name are read and judged when the inventory loads; none of them hangs."""

from pathlib import Path

import pytest

from tests.unit.inputs.file_cases import CERTIFICATES, GOOD_NAMES, KEYS, MORE_KEYS, PATHS
from tests.unit.inputs.inventories import changed, problems


def field(place: str) -> str:
    """How a message calls a place of the table."""
    place = place.replace("service.", "services[0].", 1)
    return place.replace("vllm.", "engines.vllm.", 1)


@pytest.mark.parametrize(("place", "file", "words"), [*KEYS, *MORE_KEYS])
def test_a_wrong_file_is_refused(folder: Path, place: str, file: str, words: str):
    (problem,) = problems(folder, changed(folder, (place, f"{{files}}/{file}")))
    assert problem.startswith(f"{field(place)}:") and words in problem
    assert file in problem and "k" * 32 not in problem


@pytest.mark.parametrize(("place", "path", "words"), PATHS)
def test_a_path_that_no_file_has(folder: Path, place: str, path: str, words: str):
    (problem,) = problems(folder, changed(folder, (place, path)))
    assert problem.startswith(f"{field(place)}:") and words in problem


@pytest.mark.parametrize(("certificate", "key", "name", "wrong", "words"), CERTIFICATES)
def test_a_wrong_certificate_is_refused(
    folder: Path, certificate: str, key: str, name: str, wrong: str, words: str
):
    given = changed(
        folder,
        ("balancer.server_name", name),
        ("balancer.certificate_file", f"{{files}}/{certificate}"),
        ("balancer.certificate_key_file", f"{{files}}/{key}"),
    )
    found = problems(folder, given)
    assert found[0].startswith(f"balancer.{wrong}:") and words in found[0], found


def test_a_certificate_is_for_the_names_of_routes_too(folder: Path):
    given = (
        ("balancer.certificate_file", "{files}/tls.crt"),
        ("balancer.certificate_key_file", "{files}/tls.key"),
    )
    good = ("service.route", {"server_name": "a.chat.example.com"})
    wrong = ("service.route", {"server_name": "chat.example.org"})
    assert problems(folder, changed(folder, *given, good)) == []
    (problem,) = problems(folder, changed(folder, *given, wrong))
    assert problem.startswith("services[0].route.server_name:") and "make them agree" in problem


@pytest.mark.parametrize("name", GOOD_NAMES)
@pytest.mark.parametrize("file", ["tls.crt", "server.crt"])
def test_a_certificate_of_the_name_is_taken(folder: Path, name: str, file: str):
    given = changed(
        folder,
        ("balancer.server_name", name),
        ("balancer.certificate_file", f"{{files}}/{file}"),
        ("balancer.certificate_key_file", "{files}/tls.key"),
    )
    assert problems(folder, given) == []


@pytest.mark.parametrize(
    ("place", "file"),
    [
        ("balancer.template", "good.j2"),
        ("vllm.lock", "good.lock"),
        ("vllm.hub_token_file", "good.token"),
    ],
)
def test_a_good_file_is_taken(folder: Path, place: str, file: str):
    assert problems(folder, changed(folder, (place, f"{{files}}/{file}"))) == []
