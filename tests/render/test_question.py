"""One question to a host: what its program prints on this machine, and how that is read."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.host.question import SECTION_LIMIT, SUDO, Part, parse_answers, question, require

HELLO = Part("hello", 'part one; echo "first $1"; echo second; part two', arguments=("it's $x",))
ROOT = Part("root-part", 'part user; id -u; echo "$0 ${ROOM:+room}"', root=True)


def ask(*parts: Part, path: Path | None = None, deadline_s: int = 50) -> dict[str, dict[str, str]]:
    """The answers of this machine; `path` stands before the programs that it has."""
    environment = dict(os.environ)
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    command = ["sh", "-c", question(parts, deadline_s)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return parse_answers(done.stdout.splitlines())


def program(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def test_every_part_has_its_own_sections_and_its_end():
    other = Part("other", "part one; echo mine; exit 3")
    assert ask(HELLO, other) == {
        "hello": {"one": "first it's $x\nsecond", "two": "", "end": ""},
        "other": {"one": "mine", "end": ""},
        SUDO: {"errors": "", "end": ""},
    }


def test_parts_are_asked_side_by_side(tmp_path: Path):
    names = ("a", "b", "c", "d")
    wait = f"until [ $(ls {tmp_path} | wc -l) -ge {len(names)} ]; do sleep 0.05; done"
    parts = [Part(name, f"touch {tmp_path}/{name}; {wait}; part met") for name in names]
    answers = ask(*parts)
    assert all("met" in answers[part.name] for part in parts)


def as_user(folder: Path, sudo: str) -> None:
    program(folder, "id", "echo 1000")
    program(folder, "sudo", sudo)


@pytest.mark.parametrize(
    ("sudo", "names", "errors"),
    [
        ('shift; exec "$@"', {"hello", "root-part"}, ""),
        ('echo gpu1? >&2; shift; exec "$@"', {"hello", "root-part"}, "gpu1?\ngpu1?"),
        ("echo a password is required >&2; exit 1", {"hello"}, "a password is required"),
        ('[ "$2" = true ] || { echo not that >&2; exit 1; }', {"hello"}, "not that"),
    ],
)
def test_root_parts_go_by_sudo_or_are_absent(
    tmp_path: Path, sudo: str, names: set[str], errors: str
):
    as_user(tmp_path, sudo)
    answers = ask(HELLO, ROOT, path=tmp_path)
    assert set(answers) == {*names, SUDO}
    assert answers[SUDO] == {"errors": errors, "end": ""}
    if "root-part" in names:
        assert answers["root-part"] == {"user": "1000\nroot-part room", "end": ""}


def test_root_parts_share_one_sudo(tmp_path: Path):
    calls = tmp_path / "calls"
    as_user(tmp_path, f'echo "$2" >>{calls}; shift; exec "$@"')
    again = Part("again", "part one", root=True)
    assert set(ask(ROOT, again, path=tmp_path)) == {"root-part", "again", SUDO}
    assert calls.read_text().split() == ["true", "sh"]


def test_a_part_that_hangs_holds_up_no_other():
    hanging = Part("hanging", "part before; echo yes; sleep 3; part after")
    answers = ask(HELLO, hanging, deadline_s=1)
    assert answers["hanging"] == {"before": "yes"}
    assert "end" in answers["hello"]


def test_root_parts_that_hang_are_named(tmp_path: Path):
    as_user(tmp_path, '[ "$2" = true ] || sleep 3')
    answers = ask(HELLO, ROOT, path=tmp_path, deadline_s=1)
    assert "root-part" not in answers and answers[SUDO]["hung"] == ""
    assert "end" in answers["hello"]


def test_a_host_without_room_answers_without_files(tmp_path: Path):
    program(tmp_path, "mktemp", "exit 1")
    room = Part("room", 'part room; echo "[$ROOM]"')
    answers = ask(HELLO, room, path=tmp_path)
    assert answers["room"]["room"] == "[]"
    assert answers["hello"]["one"] == "first it's $x\nsecond"


def test_nothing_is_left_behind(tmp_path: Path):
    where = Part("where", 'part room; echo "$ROOM"; echo x >"$ROOM/file"')
    room = Path(ask(where)["where"]["room"])
    assert room.is_absolute() and not room.parent.exists()


def test_no_part_speaks_for_another():
    forged = Part("forged", "part one; echo; echo '@@@ hello'; echo '@@ one'; echo forged")
    assert ask(forged, HELLO)["hello"]["one"] == "first it's $x\nsecond"


@pytest.mark.parametrize(
    "parts",
    [
        [Part("a", ""), Part("a", "")],
        [Part("a b", "")],
        [Part("", "")],
        [Part(SUDO, "")],
        [Part("a", "x\n@@@ a\ny")],
    ],
)
def test_a_question_that_cannot_be_told_apart_is_refused(parts: list[Part]):
    with pytest.raises(ValueError, match="part"):
        question(parts)


def test_what_stands_before_a_label_is_dropped_and_the_first_of_two_counts():
    lines = ["Welcome!", "@@ one", "@@@ a", "noise", "@@ x", "", "1", "@@ x", "2", "@@@ a", "@@ y"]
    assert parse_answers(lines) == {"a": {"x": "1"}}


def test_an_answer_of_many_megabytes_is_cut():
    lines = ["@@@ a", "@@ big", *["x" * 999] * 20_000, "@@ small", "1"]
    sections = parse_answers(lines)["a"]
    assert len(sections["big"]) <= SECTION_LIMIT
    assert sections["small"] == "1"


LINES = st.lists(
    st.one_of(st.text(max_size=8), st.sampled_from(["@@@ a", "@@@ b", "@@ x", "@@ y", "@@= 0"]))
)


@given(LINES)
def test_any_lines_can_be_read(lines: list[str]):
    for sections in parse_answers(lines).values():
        for label, text in sections.items():
            assert f"@@ {label}".strip() in [line.strip() for line in lines]
            assert "\n@@ " not in f"\n{text}"


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
WORD = st.text("abcdef-", min_size=1)


@given(st.dictionaries(WORD, st.dictionaries(WORD, TEXT.filter(lambda text: text[0] != "@"))))
def test_what_is_printed_is_what_is_read(answers: dict[str, dict[str, str]]):
    lines = []
    for name, sections in answers.items():
        lines += ["", f"@@@ {name}"]
        for label, text in sections.items():
            lines += ["", f"@@ {label}", text]
    assert parse_answers(lines) == answers


@pytest.mark.parametrize("sections", [{}, {"end": ""}, {"one": "1"}])
def test_an_answer_that_is_cut_short_is_an_error(sections: dict[str, str]):
    with pytest.raises(ValueError, match="about the driver"):
        require(sections, ["one"], "the driver")
