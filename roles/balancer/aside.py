"""Replicas set aside in the live site while their hosts restart, and taken back, byte for byte."""

import re
import shlex
from collections.abc import Collection
from ipaddress import ip_address

from roles.balancer.nginx import SITE, check, reload_script

MARK = " down;  # set aside:"
# What may follow an address: parameters, and a comment. A line with more on it is left alone.
REST = r"(([ \t][^;#{}]*)?;[ \t\r]*(#.*)?)$"
DOWN = r"^[ \t]*server[ \t][^;#{}]*[ \t]down[ \t;]"

# Fails where an upstream is left without a server that is in.
NONE_IS_EMPTY = (
    r"/^[ \t]*upstream[ \t]/ { inside = 1; live = 0 } "
    rf"inside && /^[ \t]*server[ \t][^;#{{}}]*;/ && !/{DOWN}/ {{ live = 1 }} "
    r"inside && /^[ \t]*[}]/ { inside = 0; if (!live) empty = 1 } "
    r"END { exit empty }"
)


def set_aside_script(addresses: Collection[str]) -> str:
    """A shell script that marks the servers of these IP addresses as down in the live site.

    It changes nothing where there is no site, or where an upstream would be empty.
    """
    edit = f"/{DOWN}/!s/{_server(addresses)}{REST}/\\1{MARK}\\3/"
    enough = (
        f'if ! awk {shlex.quote(NONE_IS_EMPTY)} "$NEW"; then '
        "echo 'left as it is: no other replica would be in'; exit 0; fi"
    )
    return _script(edit, enough)


def take_back_script(addresses: Collection[str]) -> str:
    """A shell script that undoes `set_aside_script`; without its marks it changes nothing."""
    return _script(f"s/{_server(addresses)}{MARK}{REST}/\\1\\3/", "")


def _server(addresses: Collection[str]) -> str:
    return rf"^([ \t]*server[ \t]+({'|'.join(map(_literal, addresses))}):[0-9]+)"


def _literal(address: str) -> str:
    """A regular expression for an IP address as the site has it; ValueError where it is none."""
    if "%" in address:
        raise ValueError(f"{address!r} has a zone: nginx takes none")
    found = ip_address(address)
    return re.escape(f"[{found}]" if found.version == 6 else str(found))


def _script(edit: str, allowed: str) -> str:
    site = shlex.quote(SITE)
    new = shlex.quote(f"{SITE}.pyinfra-new")
    lines = [
        "set -eu",
        f"[ -f {site} ] || exit 0",
        "umask 077",
        "STAGE=$(mktemp -d)",
        "export STAGE",
        "trap 'rm -rf \"$STAGE\"' EXIT",
        f'NEW="$STAGE"{site}',
        'mkdir -p "${NEW%/*}"',
        f'LC_ALL=C sed -E {shlex.quote(edit)} {site} > "$NEW"',
        f'if cmp -s {site} "$NEW"; then exit 0; fi',
        allowed,
        f"( {check()} ) || {{ echo 'the site was left as it is' >&2; exit 1; }}",
        f"cp -p {site} {new}",
        f'cat "$NEW" > {new}',
        f"mv -f {new} {site}",
        # An nginx that does not run sends nothing to anybody; it is started further on.
        f"if systemctl is-active --quiet nginx; then {reload_script()}; fi",
    ]
    return "\n".join(line for line in lines if line)
