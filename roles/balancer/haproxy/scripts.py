"""Shell scripts that check HAProxy's files, load them, and print what it has loaded."""

import shlex

from roles.balancer.haproxy.paths import (
    DRAINED,
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

# Sends each worker the commands of a file, through the master process. A worker that is ending
# takes none, and says so.
TELL_WORKERS = """import socket, sys
master, commands, *workers = sys.argv[1:]
for line in open(commands):
    for worker in workers:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(master)
            connection.sendall(("@!%s %s\\n" % (worker, line.strip())).encode())
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
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
    """A script that tells HAProxy who is drained, reloads it, waits until a new worker runs, and
    records what is loaded.

    Clients of an old worker keep their connection for one more request, so it must not send that to
    a drained member. A reload succeeds even where HAProxy cannot use the new configuration (a port
    is taken): it goes on with the old one then. A master that was started without our files is
    restarted. The old record is removed first, as what is loaded is unknown until the new one is
    written.
    """
    untold = _fail_with_log("haproxy was not told who is drained")
    kept = _fail_with_log("haproxy went on with its old configuration")
    return f"""MASTER=$(cat {PID})
if ! tr '\\0' '\\n' < "/proc/$MASTER/cmdline" | grep -Fxq {SITE}
then {start_script()}
else
OLD=$(pgrep -P "$MASTER" || true); rm -f {LOADED}
python3 -c {shlex.quote(TELL_WORKERS)} {MASTER} {DRAINED} $OLD || {untold}
systemctl reload haproxy || {_fail_with_log("haproxy was not reloaded")}
loaded() {{ pgrep -P "$MASTER" | grep -Fxvq "${{OLD:-none}}"; }}
for _ in $(seq 150); do ! loaded || break; sleep 0.2; done
loaded || {kept}
{_record()}
fi"""


def _digest() -> str:
    return digest_command((*FILES, f"{KEYS}/*"))


def _record() -> str:
    return record_script(_digest(), LOADED)


def _fail_with_log(what: str) -> str:
    log = "journalctl -u haproxy -n 5 -o cat --no-pager"
    return f"{{ echo '{what}:' >&2; {log} >&2; exit 1; }}"
