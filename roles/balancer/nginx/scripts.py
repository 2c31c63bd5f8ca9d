"""Shell scripts that check nginx's files, load them, and print what it has loaded."""

import shlex

from roles.balancer.loaded import digest_command, record_script, state_lines
from roles.balancer.nginx.paths import FILES, KEYS, LOADED, ROOT


def check(root: str = ROOT) -> str:
    """A check for `roles.host.operations.present`: `nginx -t` over all of nginx's configuration.

    The live files are copied, the staged ones replace theirs in the copy, and paths below `root`
    are changed to the copy.
    """
    live = shlex.quote(root)
    return (
        'T="$STAGE/nginx-test"; mkdir "$T"; '
        # Dangling links are left out: nginx itself complains if it reads one.
        f'cp -aL {live}/. "$T/" 2>/dev/null; cp -a "$STAGE"{live}/. "$T/" && '
        f'find "$T" -type f -exec sed -i "s#{root}/#$T/#g" {{}} + && '
        '{ SAID=$(nginx -t -q -c "$T/nginx.conf" 2>&1) || '
        f'{{ printf "%s\\n" "$SAID" | sed "s#$T/#{root}/#g" >&2; false; }}; }}'
    )


def state_command() -> str:
    """A command that prints four lines: whether nginx is enabled and active, the digest of its
    files, and the digest of the loaded files."""
    return state_lines("nginx", _digest(), LOADED)


def start_script() -> str:
    """A script that starts nginx with its present files, and records what it has loaded.

    It restarts nginx, because the package starts it with other files when it is installed.
    """
    return f"systemctl restart nginx || {_fail_with_log('nginx did not start')}; {_record_loaded()}"


def reload_script() -> str:
    """A script that reloads nginx, waits until its old workers accept no more connections, and
    records what is loaded.

    `nginx -s reload` succeeds even where nginx cannot use the new configuration (a port is taken):
    nginx keeps the old one then, and only its log says so. The old record is removed first, as what
    is loaded is unknown until the new one is written.
    """
    # A worker that only finishes its requests has a longer title.
    workers = "pgrep -P \"$(cat /run/nginx.pid)\" -f '^nginx: worker process *$'"
    old_accept = f'{workers} | grep -Fxq "$OLD"'
    kept = _fail_with_log("nginx went on with its old configuration")
    return (
        f"OLD=$({workers} || true); rm -f {LOADED}; "
        f"systemctl reload nginx || {_fail_with_log('nginx was not reloaded')}; "
        f"for _ in $(seq 150); do {old_accept} || break; sleep 0.2; done; "
        f"if {old_accept}; then {kept}; fi; {_record_loaded()}"
    )


def _digest() -> str:
    return digest_command((*FILES, f"{KEYS}/*"))


def _record_loaded() -> str:
    return record_script(_digest(), LOADED)


def _fail_with_log(what: str) -> str:
    return f"{{ echo '{what}:' >&2; tail -n 5 /var/log/nginx/error.log >&2; exit 1; }}"
