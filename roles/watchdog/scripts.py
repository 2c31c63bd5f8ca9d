"""The shell script that installs or removes the watchdog. Pure."""

import shlex
from collections.abc import Sequence

from roles.host import HostFile, changed_files, paths
from roles.host.operations import install_script
from roles.watchdog.render import FILES, HELPER, PROGRAM, SOCKET, UNIT
from roles.watchdog.settings import USER
from roles.watchdog.state import WatchdogState

_STARTED = f"{paths.WATCHDOG_SOCKET_UNIT} {paths.WATCHDOG_UNIT}"


def change_script(files: Sequence[HostFile], state: WatchdogState, metrics_dir: str) -> str:
    """What makes a host's watchdog as planned; "" where it is. New files come on the standard
    input."""
    changed, leftover = changed_files(files, state.files), sorted(state.files)
    if not files:
        return removal_script() if leftover or state.user else ""
    if not changed and state.up and state.user:
        return ""
    folder = shlex.quote(metrics_dir)
    lines = ["set -eu", user_script(), f"[ -d {folder} ] || install -d -o {USER} {folder}"]
    if changed:
        # A subshell, so that its exit trap cleans up before the rest runs.
        lines.append(f"(\n{install_script(files, changed, check_script(), ())}\n)")
    lines += [
        "systemctl daemon-reload",
        # A socket does not start anew beside its service.
        f"systemctl stop {paths.WATCHDOG_HELPER_UNIT}",
        f"systemctl enable --quiet {_STARTED}",
        f"systemctl restart {_STARTED} || {{ journalctl -u {paths.WATCHDOG_UNIT} -n 20 -o cat "
        ">&2; exit 1; }",
    ]
    return "\n".join(lines)


def user_script() -> str:
    """Make the watchdog's user, where there is none."""
    return (
        f"id -u {USER} >/dev/null 2>&1 || useradd --system --user-group --no-create-home "
        f"--home-dir {paths.STATE} --shell /usr/sbin/nologin {USER}"
    )


def check_script() -> str:
    """Have the host's own Python, systemd and nft check the new files."""
    parse = (
        "import ast, sys\n"
        "sys.version_info < (3, 8) and sys.exit('/usr/bin/python3 is older than 3.8')\n"
        "[ast.parse(open(path).read()) for path in sys.argv[1:]]"
    )
    return (
        f'/usr/bin/python3 -c {shlex.quote(parse)} "$STAGE"{PROGRAM} "$STAGE"{HELPER} && '
        # A host without nft says so elsewhere, where the fleet wants a firewall.
        "{ ! command -v nft >/dev/null || "
        f'nft --check -f "$STAGE"{paths.WATCHDOG_RULES}; }} && '
        f'said=$(systemd-analyze verify --man=no "$STAGE"{SOCKET} "$STAGE"{UNIT} 2>&1) && '
        # systemd-analyze exits with 0 even for unknown keys and values.
        '{ ! printf "%s\\n" "$said" | grep llm-watchdog; }'
    )


def removal_script() -> str:
    """Remove all of the watchdog but evidence and quarantines, which are a person's to read."""
    return "\n".join(
        [
            f"systemctl disable --now --quiet {_STARTED} || true",
            f"systemctl stop {paths.WATCHDOG_HELPER_UNIT} 2>/dev/null || true",
            f"rm -f {' '.join(FILES)}",
            f"rmdir {paths.WATCHDOG} {paths.UNIT_TEMPLATE}.d 2>/dev/null || true",
            f"rm -rf {paths.STATE}/watchdog",
            f"nft delete table inet {paths.WATCHDOG_TABLE} 2>/dev/null || true",
            "systemctl daemon-reload",
            f"userdel {USER} 2>/dev/null || true",
        ]
    )
