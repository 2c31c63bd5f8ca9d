"""The shell scripts that check nginx's files, load them, and say what it has loaded."""

import shlex

from roles.balancer.nginx.paths import FILES, KEYS, LOADED, ROOT


def check(root: str = ROOT) -> str:
    """A check for `roles.host.operations.present`: `nginx -t` over all of nginx's configuration.

    The live files are copied, the staged ones laid over them, and every path below `root` is
    turned to the copy.
    """
    live = shlex.quote(root)
    return (
        'T="$STAGE/nginx-test"; mkdir "$T"; '
        # A dangling link is none of our business unless nginx reads it, and then nginx says so.
        f'cp -aL {live}/. "$T/" 2>/dev/null; cp -a "$STAGE"{live}/. "$T/" && '
        f'find "$T" -type f -exec sed -i "s#{root}/#$T/#g" {{}} + && '
        '{ SAID=$(nginx -t -q -c "$T/nginx.conf" 2>&1) || '
        f'{{ printf "%s\\n" "$SAID" | sed "s#$T/#{root}/#g" >&2; false; }}; }}'
    )


def state_command() -> str:
    """Prints four lines: whether nginx is enabled, is active, the files' digest, and the loaded."""
    return (
        'echo "$(systemctl is-enabled nginx 2>/dev/null)"; '
        'echo "$(systemctl is-active nginx 2>/dev/null)"; '
        f'echo "$({_digest()})"; echo "$(cat {LOADED} 2>/dev/null)"'
    )


def start_script() -> str:
    """Starts nginx with its files as they are, and notes what it has loaded.

    The package has started it when it was installed, with other files: a mere start would leave it
    at that.
    """
    return f"systemctl restart nginx || {_fail_with_log('nginx did not start')}; {_record_loaded()}"


def reload_script() -> str:
    """Reloads nginx, waits until its old workers take no more connections and notes what is loaded.

    `nginx -s reload` succeeds even where the new configuration cannot be used (a port that is
    taken): nginx then goes on with the old one, and only its log says so. The old note goes first:
    what nginx has loaded is unknown until the new one is written.
    """
    # The title of a worker that only ends what it has begun is longer.
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
    files = " ".join(shlex.quote(path) for path in FILES)
    return f"cat {files} {KEYS}/* 2>/dev/null | sha256sum | cut -d' ' -f1"


def _record_loaded() -> str:
    return f"umask 077; {_digest()} > {LOADED}"


def _fail_with_log(what: str) -> str:
    return f"{{ echo '{what}:' >&2; tail -n 5 /var/log/nginx/error.log >&2; exit 1; }}"
