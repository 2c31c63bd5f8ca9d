"""A balancer as it is found on its host: the command that looks, and its parsed output. Pure."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from roles.balancer.balancer import Balancer
from roles.balancer.certificate import names_command, parse_names
from roles.balancer.state import STATE

SECTION = "@@ "
VIRTUAL_ADDRESS = "/etc/llm/balancer/keepalived.conf"
VIRTUAL_ADDRESS_SCRIPT = "/etc/llm/balancer/virtual-address.sh"
VIRTUAL_ADDRESS_UNIT = "/etc/systemd/system/llm-virtual-address.service"
_UNIT = VIRTUAL_ADDRESS_UNIT.rpartition("/")[2]
# What a virtual address needs beside a balancer's own packages.
_SHARED_PACKAGES = "keepalived curl"


@dataclass(frozen=True)
class FoundBalancer:
    """A balancer as it is found on its host.

    `state` is the text of state.json. Without a state `old_site` is the text of the site, which an
    earlier version of this project wrote. `files` has our files by path, each as `HostFile.state`
    puts it. `certificate` has the names of the self-signed certificate, if it does not expire soon.
    `has_main_file` says that the program was installed before. `loaded` says whether the program
    runs with the present files. `others` are the kinds of other programs that have our site: one of
    them serves until this program has taken its place. `virtual_address` has the files of an
    address that balancers share, by path; `shares` says whether it runs, and at boot.
    """

    state: str = ""
    old_site: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    packages: frozenset[str] = frozenset()
    certificate: frozenset[str] = frozenset()
    has_main_file: bool = False
    enabled: bool = False
    active: bool = False
    loaded: bool = False
    others: tuple[str, ...] = ()
    virtual_address: Mapping[str, str] = field(default_factory=dict)
    shares: bool = False


def find_command(balancer: Balancer, others: Collection[Balancer] = ()) -> str:
    """The shell command that prints the sections of a `FoundBalancer`.

    `others` are the programs that could serve in its place.
    """
    packages = " ".join(balancer.packages)
    patterns = " ".join([*balancer.files, STATE])
    parts = {
        "state": f"cat {STATE} 2>/dev/null",
        "old site": f"[ -e {STATE} ] || cat {shlex.quote(balancer.site)} 2>/dev/null",
        "packages": "dpkg-query -W -f='${Package} ${db:Status-Status}\\n' "
        f"{packages} {_SHARED_PACKAGES} 2>/dev/null",
        "known": f"ls {shlex.quote(balancer.main_file)} 2>/dev/null",
        "service": balancer.state_command(),
        "others": "; ".join(
            f"[ -e {shlex.quote(other.site)} ] && echo {other.kind}" for other in others
        ),
        "certificate": names_command(balancer.self_signed),
        "shares": f"systemctl is-active {_UNIT} 2>/dev/null; "
        f"systemctl is-enabled {_UNIT} 2>/dev/null",
        "virtual address": _file_states(
            f"{VIRTUAL_ADDRESS} {VIRTUAL_ADDRESS_SCRIPT} {VIRTUAL_ADDRESS_UNIT}"
        ),
        "files": _file_states(patterns),
    }
    return "; ".join(f"echo '{SECTION}{name}'; {part}" for name, part in parts.items()) + "; :"


def _file_states(patterns: str) -> str:
    return (
        f'for f in {patterns}; do [ -f "$f" ] && '
        'printf "%s %s %s\\n" "$(stat -c "%a %U %G" -- "$f")" '
        '"$(sha256sum < "$f" | cut -d" " -f1)" "$f"; done'
    )


def parse_found(output: Sequence[str]) -> FoundBalancer:
    """The output of the command, parsed; KeyError or ValueError for any other text."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in output:
        if line.startswith(SECTION):
            lines = sections.setdefault(line.removeprefix(SECTION), [])
        else:
            lines.append(line)
    enabled, active, digest, loaded = (line.strip() for line in [*sections["service"], ""][:4])
    return FoundBalancer(
        state="\n".join(sections["state"]),
        old_site="".join(f"{line}\n" for line in sections["old site"]),
        files=dict(map(_file_state, sections["files"])),
        packages=frozenset(
            line.split()[0] for line in sections["packages"] if line.endswith(" installed")
        ),
        certificate=parse_names("\n".join(sections["certificate"])),
        has_main_file=bool(sections["known"]),
        enabled=enabled == "enabled",
        active=active == "active",
        loaded=loaded == digest,
        others=tuple(sections["others"]),
        virtual_address=dict(map(_file_state, sections["virtual address"])),
        shares=sections["shares"] == ["active", "enabled"],
    )


def _file_state(line: str) -> tuple[str, str]:
    mode, owner, group, digest, path = line.split(" ", 4)
    return path, f"{mode} {owner} {group} {digest}"
