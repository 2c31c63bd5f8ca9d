"""Whatever a host prints is read, or refused with a ValueError."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.host.question import parse_answers as parse_question
from roles.preflight.answers import Listener, Python, UrlResult, parse_preflight
from roles.preflight.checks import checks
from tests.unit.preflight.hosts import answers, balancer, needs, output, report

NAMES = [line.removeprefix("@@ ") for line in output() if line.startswith("@@ ")]
NAMES.remove("end")
NEARLY = (
    *("folder /x", "space a 1 2 3 4% /", "inodes a 1 2 3 4% /", "options ro", "yes"),
    *("LISTEN 0 5 *:80 *:*", "file 1 a", "file -1 b", "wheels 5", "version 3", "curl 0 0"),
    *("python python3", "venv yes", "nft chain {", "policy drop hook input", "9" * 30),
    "@@ hung-root",
)
# Much of this nearly fits one of the patterns.
TEXT = st.one_of(
    st.text(max_size=60),
    st.text('@= %:.,/-0123456789abcdefilnorstuvy\n"()', max_size=120),
    st.lists(st.sampled_from(NEARLY), max_size=8).map("\n".join),
)
REPORT = report()


@given(st.sampled_from(NAMES), TEXT)
def test_any_text_in_any_part(name: str, text: str):
    try:
        parts: dict[str, Any] = {name.replace("-", "_"): text}
        found = answers(**parts)
    except ValueError:
        return
    assert checks(found, REPORT, needs(), 0.0)
    assert checks(found, REPORT, balancer(), None)


@given(st.lists(TEXT, max_size=20))
def test_any_lines(lines: list[str]):
    try:
        parse_preflight(parse_question([line for text in lines for line in text.split("\n")]))
    except ValueError as error:
        assert str(error)


@given(st.integers(0, output().index("@@ end")))
def test_an_answer_that_is_cut_short_is_refused(length: int):
    with pytest.raises(ValueError, match=r"cut short: .*end missing|no answer"):
        parse_preflight(parse_question(output()[:length]))


def test_a_clock_that_says_nothing():
    with pytest.raises(ValueError, match="the host's clock says 'soon', which are no seconds"):
        answers(clock="soon")


def test_what_is_read():
    found = answers(
        listeners='LISTEN 0 511 [::]:443 [::]:* users:(("nginx",pid=12,fd=6),("nginx",pid=9,fd=6))',
        owners="12 0::/system.slice/nginx.service",
        proxies="https_proxy=http://10.0.0.1:3128",
        weights="folder /srv/a b\nreal /srv/a b\nreadable yes\nfile 12 a b.safetensors",
        root_errors="sudo: unable to resolve host gpu1",
        python="python python3\nversion 3.12.3\nvenv yes\npython python3.14\npython python3.9\n"
        "version 3.9.2",
        wheelhouse="folder /srv/a\nwheels 5\nfolder /srv/b\nwheels 0",
    )
    assert found.pythons == {
        "python3": Python((3, 12, 3), True),
        "python3.14": Python(None, False),
        "python3.9": Python((3, 9, 2), False),
    }
    assert found.wheels == {"/srv/a": 5, "/srv/b": 0}
    assert found.listeners == (Listener(443, "nginx", 12, "0::/system.slice/nginx.service"),)
    assert found.weights["/srv/a b"].sizes == (("a b.safetensors", 12),)
    assert found.folders["/var"].free_inodes == 900000
    assert found.urls["index"] == UrlResult("curl", 0, 200)
    assert (found.glibc, found.systemd) == ((2, 39), 255)
    assert found.root and not found.temporary_full


def test_a_file_system_without_inodes_of_its_own():
    disks = "folder /\nat /\nspace x 9 9 9 1% /\ninodes x 0 0 0 - /\noptions rw"
    assert answers(disks=disks).folders["/"].free_inodes is None


def test_without_sudo_the_ordinary_answers_count():
    found = answers(sudo=False, listening="asked\nLISTEN 0 5 127.0.0.1:8001 0.0.0.0:*")
    assert found.listeners == (Listener(8001),)
    assert not found.root and found.umask is None
