"""Shell scripts that check HAProxy's files, load them, and print what it has loaded."""

import shlex

from roles.balancer.haproxy.paths import (
    FILES,
    KEYS,
    LOADED,
    LOADS,
    MAIN,
    MASTER,
    PID,
    ROOT,
    SITE,
)
from roles.balancer.loaded import digest_command, record_script, state_lines

# Sends one command to the master process, and prints the answer.
ASK_MASTER = """import socket, sys
with socket.socket(socket.AF_UNIX) as master:
    master.settimeout(5)
    master.connect(sys.argv[1])
    master.sendall(sys.argv[2].encode() + b"\\n")
    while answer := master.recv(65536):
        sys.stdout.write(answer.decode(errors="replace"))
"""


def check(root: str = ROOT) -> str:
    """A check for `roles.host.operations.present`: `haproxy -c` over all of its configuration.

    The live files are copied, the staged ones replace theirs in the copy, and paths below `root`
    are changed to the copy.
    """
    live = shlex.quote(root)
    loads = " ".join(f'-f "$T"{path.removeprefix(ROOT)}' for path in (MAIN, *LOADS))
    return (
        'T="$STAGE/haproxy-test"; mkdir "$T"; '
        f'cp -aL {live}/. "$T/" 2>/dev/null; cp -a "$STAGE"{live}/. "$T/" && '
        f'find "$T" -type f -exec sed -i "s#{root}/#$T/#g" {{}} + && '
        f"{{ SAID=$(haproxy -c {loads} 2>&1) || "
        f'{{ printf "%s\\n" "$SAID" | grep -F ALERT | sed "s#$T/#{root}/#g" >&2; false; }}; }}'
    )


def state_command() -> str:
    """A command that prints four lines: whether HAProxy is enabled and active, the digest of its
    files, and the digest of the loaded files."""
    return state_lines("haproxy", _digest(), LOADED)


def start_script() -> str:
    """A script that starts HAProxy with its present files, and records what it has loaded.

    It restarts HAProxy, because the package starts it without our files when it is installed.
    """
    failed = _fail_with_log("haproxy did not start")
    return f"systemctl daemon-reload; systemctl restart haproxy || {failed}; {_record()}"


def reload_script() -> str:
    """A script that reloads HAProxy, waits until its old workers accept no more connections, and
    records what is loaded.

    A reload succeeds even where HAProxy cannot use the new configuration (a port is taken): it goes
    on with the old one then. A master that was started without our files is restarted. The old
    record is removed first, as what is loaded is unknown until the new one is written.
    """
    kept = _fail_with_log("haproxy went on with its old configuration")
    ask = f"python3 -c {shlex.quote(ASK_MASTER)} {MASTER}"
    # Of a worker that has stopped accepting, `show info` says so; of one that has gone, nothing.
    accepts = f"{ask} \"@!$pid show info\" 2>/dev/null | grep -Fxq 'Stopping: 0'"
    return f"""MASTER=$(cat {PID})
if ! tr '\\0' '\\n' < "/proc/$MASTER/cmdline" | grep -Fxq {SITE}
then {start_script()}
else
OLD=$(pgrep -P "$MASTER" || true); rm -f {LOADED}
systemctl reload haproxy || {_fail_with_log("haproxy was not reloaded")}
loading() {{
    pgrep -P "$MASTER" | grep -Fxvq "${{OLD:-none}}" || return 0
    for pid in $OLD; do ! {accepts} || return 0; done
    return 1
}}
for _ in $(seq 150); do loading || break; sleep 0.2; done
if loading; then {kept}; fi
{_record()}
fi"""


def _digest() -> str:
    return digest_command((*FILES, f"{KEYS}/*"))


def _record() -> str:
    return record_script(_digest(), LOADED)


def _fail_with_log(what: str) -> str:
    log = "journalctl -u haproxy -n 5 -o cat --no-pager"
    return f"{{ echo '{what}:' >&2; {log} >&2; exit 1; }}"
