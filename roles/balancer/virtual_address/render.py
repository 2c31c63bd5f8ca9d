"""The files of a virtual address, and the scripts that install and remove it. Pure."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from roles.balancer.found import (
    VIRTUAL_ADDRESS,
    VIRTUAL_ADDRESS_SCRIPT,
    VIRTUAL_ADDRESS_UNIT,
)
from roles.host import HostFile
from roles.host.operations import install_script
from roles.host.templates import render

PACKAGES = ("keepalived", "curl")
UNIT = VIRTUAL_ADDRESS_UNIT.rpartition("/")[2]
RUNTIME = UNIT.removesuffix(".service")
_FIRST_PRIORITY = 150


@dataclass(frozen=True)
class VirtualAddress:
    """An address that balancers share, as one of them has it.

    `own` is its own address, `balancers` are those of all in the inventory's order: the first ones
    get the address first. `port` is where they answer.
    """

    address: str
    own: str
    balancers: Sequence[str]
    port: int


def files(wanted: VirtualAddress | None) -> list[HostFile]:
    """The files of a virtual address; none for None."""
    if wanted is None:
        return []
    return [
        HostFile(VIRTUAL_ADDRESS, configuration(wanted)),
        HostFile(VIRTUAL_ADDRESS_SCRIPT, fill_script(wanted.own)),
        HostFile(
            VIRTUAL_ADDRESS_UNIT,
            render(
                "systemd/llm-virtual-address.service.j2",
                runtime=RUNTIME,
                script=VIRTUAL_ADDRESS_SCRIPT,
            ),
        ),
    ]


def configuration(wanted: VirtualAddress) -> str:
    """keepalived's configuration, in which the interface's name is still to be filled in.

    A balancer that has lost its power is missed after three advertisements, in 2 s.
    """
    host = f"[{wanted.own}]" if ":" in wanted.own else wanted.own
    return render(
        "keepalived/virtual-address.conf.j2",
        router=f"llm-{wanted.own}",
        url=f"https://{host}:{wanted.port}/health",
        # Of two fleets in one network each has its own.
        number=int(ip_address(wanted.address)) % 255 + 1,
        priority=_FIRST_PRIORITY - list(wanted.balancers).index(wanted.own),
        own=wanted.own,
        peers=[one for one in wanted.balancers if one != wanted.own],
        address=wanted.address,
    )


def fill_script(own: str) -> str:
    """A shell script that writes the configuration with the interface that has an address."""
    return f"""# Written by pyinfra-llm; a deploy replaces it.
# The interface's name may change with a boot.
dev=$(ip -o address show to {own} | awk '{{ print $2; exit }}')
[ -n "$dev" ] || {{ echo "no interface has {own}" >&2; exit 1; }}
sed "s/@INTERFACE@/$dev/" {VIRTUAL_ADDRESS} >/run/{RUNTIME}/keepalived.conf
"""


def config_test(file: str) -> str:
    """A shell command that fails where keepalived does not take a file, and prints why.

    keepalived 2.2.0 to 2.2.7 (Debian 12, Ubuntu 22.04) ends each check of a file with a script by
    a signal to itself (github.com/acassen/keepalived/issues/2587); what is wrong it still prints.
    """
    return (
        f'{{ status=0; said=$(keepalived --config-test --use-file="{file}" 2>&1) || status=$?; '
        '[ "$status" = 0 ] || { [ "$status" = 143 ] && [ -z "$said" ]; } || '
        '{ printf "%s\\n" "$said" >&2; false; }; }'
    )


def install(new: Sequence[HostFile], changed: Sequence[HostFile]) -> str:
    """A script that checks and writes the files, which come on its standard input, and starts."""
    check = (
        f'own=$(awk \'$1 == "unicast_src_ip" {{ print $2 }}\' "$STAGE"{VIRTUAL_ADDRESS}) && '
        # keepalived refuses an interface that is not there, and lo.
        "dev=$(ip -o address show to \"$own\" | awk '{ print $2; exit }') && "
        f'sed "s/@INTERFACE@/$dev/" "$STAGE"{VIRTUAL_ADDRESS} >"$STAGE/check" && '
        + config_test("$STAGE/check")
    )
    return f"{install_script(new, changed, check, ())}\n{start()}"


def start() -> str:
    """A script that starts it, and at boot."""
    log = f"journalctl -u {UNIT} -n 20 -o cat --no-pager"
    return (
        f"systemctl daemon-reload; systemctl enable --quiet {UNIT}; "
        f"systemctl restart {UNIT} || {{ {log} >&2; exit 1; }}"
    )


def removal() -> str:
    """A script that gives the address up."""
    paths = shlex.join([VIRTUAL_ADDRESS, VIRTUAL_ADDRESS_SCRIPT, VIRTUAL_ADDRESS_UNIT])
    return f"systemctl disable --now --quiet {UNIT} || true; rm -f {paths}; systemctl daemon-reload"
