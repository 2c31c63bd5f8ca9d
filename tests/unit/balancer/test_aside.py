"""The scripts are run by a real shell, on a site below a folder, with stand-ins for nginx."""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roles.balancer import servers
from roles.balancer.aside import set_aside_script, take_back_script
from roles.balancer.nginx import SELF_SIGNED, SITE
from roles.balancer.render import render_site

from . import fleets

FLEET = fleets.plan(gpu1=[8000, 8001], gpu2=[8000], gpu3=[8000], gpu11=[8000])
ADDRESSES = {"gpu1": "10.0.0.1", "gpu2": "10.0.0.2", "gpu3": "fd00::3", "gpu11": "10.0.0.11"}


def run(script: str, text: str | None, nginx: str = "exit 0") -> str | None:
    """The site after a script; None where there was none and is none."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        live = Path(SITE.replace("/etc/nginx", f"{folder}/etc"))
        live.parent.mkdir(parents=True)
        if text is not None:
            live.write_bytes(text.encode())
            live.chmod(0o640)
        stubs = {"nginx": nginx, "systemctl": "[ $1 = reload ]"}  # nginx is not active
        for stub, body in stubs.items():
            (folder / stub).write_text(f"#!/bin/sh\n{body}\n")
            (folder / stub).chmod(0o755)
        done = subprocess.run(
            ["sh", "-c", script.replace("/etc/nginx", f"{folder}/etc")],
            env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == (1 if nginx == "exit 1" else 0), done.stderr
        assert len(list(live.parent.iterdir())) == (text is not None), "nothing is left behind"
        if text is None:
            return None
        assert live.stat().st_mode & 0o777 == 0o640
        return live.read_bytes().decode()


def rendered(folder: Path, drained: list[str], failures: dict[str, str]) -> str:
    found = servers(FLEET, ADDRESSES, drained, failures)
    return render_site(fleets.settings(folder), found, SELF_SIGNED, SELF_SIGNED)


def upstream(*lines: str) -> str:
    return "".join(f"{line}\n" for line in ("upstream llm {", *lines, "}"))


def test_its_servers_are_down(tmp_path: Path):
    text = rendered(tmp_path, ["gpu2"], {"gpu1/r1": "HTTP 500"})
    aside = run(set_aside_script(["10.0.0.1", "fd00:0::3"]), text)
    assert aside is not None
    assert [line.strip() for line in aside.splitlines() if ":800" in line] == [
        "server 10.0.0.1:8000 down;  # set aside: max_fails=2 fail_timeout=10s;  # gpu1/r0",
        "server 10.0.0.1:8001 down;  # gpu1/r1: out, its completion failed: HTTP 500",
        "server 10.0.0.2:8000 down;  # gpu2/r0: out, its host is drained",
        "server [fd00::3]:8000 down;  # set aside: max_fails=2 fail_timeout=10s;  # gpu3/r0",
        "server 10.0.0.11:8000 max_fails=2 fail_timeout=10s;  # gpu11/r0",
    ]
    assert run(set_aside_script(["10.0.0.1"]), aside) == aside, "twice is once"
    first = run(take_back_script(["10.0.0.1"]), aside)
    assert first is not None and first.count("set aside") == 1
    assert run(take_back_script(["fd00::3"]), first) == text


@settings(max_examples=30, deadline=None)
@given(
    aside=st.sets(st.sampled_from([*ADDRESSES.values(), "10.9.9.9"]), min_size=1),
    drained=st.sets(st.sampled_from(["gpu1", "gpu2"])),
    failing=st.sets(st.sampled_from(["gpu1/r1", "gpu3/r0"])),
)
def test_there_and_back(aside: set[str], drained: set[str], failing: set[str]):
    with TemporaryDirectory() as name:
        text = rendered(Path(name), sorted(drained), dict.fromkeys(failing, "timed out"))
    there = run(set_aside_script(sorted(aside)), text)
    assert there is not None
    lines = [line for line in there.splitlines() if line.startswith("    server ")]
    assert any(" down;" not in line for line in lines if ":800" in line), "never empty"
    assert run(take_back_script(sorted(aside)), there) == text


@pytest.mark.parametrize(
    ("line", "aside"),
    [
        ("server 10.0.0.1:80;", "server 10.0.0.1:80 down;  # set aside:;"),
        ("\tserver\t10.0.0.1:80  weight=2 ;\r", None),
        ("server 10.0.0.1:80 down;", "same"),
        ("server 10.0.0.1:80 weight=2 down max_fails=1;", "same"),
        ("server 10.0.0.1:80; # it was down;", None),
        ("server 10.0.0.1:80; server 10.0.0.3:80;", "same"),
        ("server 10.0.0.1:80", "same"),
        ("# server 10.0.0.1:80;", "same"),
        ("server 10.0.0.11:80;", "same"),
        ("server 10x0.0.1:80;", "same"),
        ("server 110.0.0.1:80;", "same"),
        ("server 10.0.0.1:80 down;  # set aside by hand", "same"),
    ],
)
def test_lines(line: str, aside: str | None, tmp_path: Path):
    text = upstream(line, "server 10.0.0.2:80;")
    there = run(set_aside_script(["10.0.0.1"]), text)
    assert there is not None
    assert (there == text) == (aside == "same")
    if aside not in (None, "same"):
        assert there == upstream(aside or "", "server 10.0.0.2:80;")
    assert run(take_back_script(["10.0.0.1"]), there) == text


def test_no_upstream_is_emptied():
    one, other = upstream("server 10.0.0.1:80;"), upstream("server 10.0.0.2:80;")
    assert run(set_aside_script(["10.0.0.1"]), one) == one
    assert run(set_aside_script(["10.0.0.1"]), one + other) == one + other
    down = upstream("server 10.0.0.1:80;", "server 10.0.0.2:80 down;", "# server 10.0.0.3:80;")
    block = "server {\n    listen 80;\n}\n"
    assert run(set_aside_script(["10.0.0.1"]), down + block) == down + block


def test_no_site():
    assert run(set_aside_script(["10.0.0.1"]), None) is None
    assert run(take_back_script(["10.0.0.1"]), None) is None


def test_what_nginx_refuses_is_not_installed():
    text = upstream("server 10.0.0.1:80;", "server 10.0.0.2:80;")
    assert run(set_aside_script(["10.0.0.1"]), text, nginx="exit 1") == text


def test_a_site_without_a_newline_at_its_end():
    text = upstream("server 10.0.0.2:80;", "server 10.0.0.1:80;").rstrip("\n}")
    there = run(set_aside_script(["10.0.0.1"]), text)
    assert there != text and run(take_back_script(["10.0.0.1"]), there) == text


@pytest.mark.parametrize("address", ["", "gpu1", "10.0.0.1; rm", "fe80::1%eth0", "10.0.0.0/8"])
def test_what_is_no_address(address: str):
    for script in (set_aside_script, take_back_script):
        with pytest.raises(ValueError):
            script([address])
