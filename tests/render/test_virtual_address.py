"""The virtual address's files, whole, and what keepalived and systemd say of them.

`python -m tests.render.test_virtual_address` writes the expected texts anew.
"""

import subprocess
from pathlib import Path

import pytest

from roles.balancer.found import VIRTUAL_ADDRESS, VIRTUAL_ADDRESS_SCRIPT, VIRTUAL_ADDRESS_UNIT
from roles.balancer.virtual_address.render import (
    VirtualAddress,
    config_test,
    configuration,
    files,
    fill_script,
)
from tests.render.test_launch import EXPECTED, needs

ALL = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
SECOND = VirtualAddress("10.0.0.100", "10.0.0.2", ALL, 8443)
NAMES = {
    VIRTUAL_ADDRESS: "keepalived.conf",
    VIRTUAL_ADDRESS_SCRIPT: "virtual-address.sh",
    VIRTUAL_ADDRESS_UNIT: "llm-virtual-address.service",
}


def texts() -> dict[str, str]:
    return {file.path: file.content for file in files(SECOND)}


@pytest.mark.parametrize("path", NAMES)
def test_whole_files(path: str):
    assert texts()[path] == (EXPECTED / NAMES[path]).read_text()


def test_without_an_address_there_is_no_file():
    assert files(None) == []


def test_each_balancer_has_its_own_priority_and_the_others_as_peers():
    found = [configuration(VirtualAddress("10.0.0.100", own, ALL, 443)) for own in ALL]
    priorities = [line for text in found for line in text.splitlines() if "priority" in line]
    assert priorities == sorted(priorities, reverse=True) and len(set(priorities)) == 3
    for own, text in zip(ALL, found, strict=True):
        peers = text.partition("unicast_peer {")[2].partition("}")[0].split()
        assert peers == [one for one in ALL if one != own]
    # All agree on the number of the address.
    assert len({text.partition("virtual_router_id ")[2].split()[0] for text in found}) == 1


@pytest.mark.parametrize("address", ["10.0.0.100", "10.0.1.0", "255.255.255.254", "fd00::ffff"])
def test_any_address_has_a_number_that_keepalived_takes(address: str):
    text = configuration(VirtualAddress(address, "fd00::1", ("fd00::1",), 443))
    assert 1 <= int(text.partition("virtual_router_id ")[2].split()[0]) <= 255
    assert "https://[fd00::1]:443/health" in text


@pytest.mark.parametrize("own", ["127.0.0.1", "::1"])
def test_the_interface_is_that_of_the_balancers_own_address(tmp_path: Path, own: str):
    needs("ip")
    if own == "::1" and "::1" not in subprocess.getoutput("ip -6 address show dev lo"):
        pytest.skip("no IPv6 here")
    (tmp_path / "in").write_text(configuration(VirtualAddress("10.0.0.100", own, (own,), 443)))
    script = fill_script(own).replace(VIRTUAL_ADDRESS, f"{tmp_path}/in")
    script = script.replace("/run/llm-virtual-address/keepalived.conf", f"{tmp_path}/out")
    subprocess.run(["sh", "-euc", script], check=True)
    assert "interface lo\n" in (tmp_path / "out").read_text()
    done = subprocess.run(["sh", "-euc", fill_script("192.0.2.1")], capture_output=True, text=True)
    assert done.returncode == 1 and "no interface has 192.0.2.1" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("", "", ""),
        ("priority", "priorrity", "priorrity"),
        ("interface @INTERFACE@", "interface none0", "none0"),
    ],
)
def test_keepalived_reads_the_configuration(tmp_path: Path, old: str, new: str, fault: str):
    needs("keepalived")
    text = configuration(SECOND).replace(old, new) if old else configuration(SECOND)
    interface = subprocess.getoutput("ip -o route show default").partition(" dev ")[2].split()
    if not interface:
        pytest.skip("no interface but lo, which keepalived refuses")
    (tmp_path / "k.conf").write_text(text.replace("@INTERFACE@", interface[0]))
    check = f"set -eu; {config_test(str(tmp_path / 'k.conf'))}"
    done = subprocess.run(["sh", "-c", check], capture_output=True, text=True)
    assert (done.returncode == 0) == (not fault), done.stderr
    assert fault in done.stderr


def test_systemd_reads_the_unit(tmp_path: Path):
    needs("systemd-analyze")
    unit = tmp_path / "llm-virtual-address.service"
    unit.write_text(texts()[VIRTUAL_ADDRESS_UNIT].replace("/usr/sbin/keepalived", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True
    )
    ours = [line for line in done.stderr.splitlines() if "llm-" in line]
    assert (done.returncode, ours) == (0, [])


if __name__ == "__main__":
    for path, name in NAMES.items():
        (EXPECTED / name).write_text(texts()[path])
