"""Operations on files, as pyinfra's own need three commands a file and write in place; and the one
that holds a host for a run."""

import shlex
from collections.abc import Callable, Sequence

from paramiko import SSHException
from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles.host.facts import FileStates
from roles.host.hostfile import HostFile, archive, changed_files
from roles.host.lease import BusyHostError, Lease, take
from roles.host.outcome import failing


@operation()
def present(files: Sequence[HostFile], check: str | None = None, absent: Sequence[str] = ()):
    """
    Write the files that differ and remove `absent`. If the check fails, nothing changes.

    + files: the files that must exist
    + check: a shell command over the new files, staged below `$STAGE` by their full paths
    + absent: paths of files that must not exist

    After `check` has ended with status 0 each file replaces the old one by a rename, in the order
    given. The content is sent on the standard input, never in an argument or below /tmp.
    """
    states = host.get_fact(FileStates, paths=[file.path for file in files] + list(absent))
    changed = changed_files(files, states)
    leftover = [path for path in absent if path in states]
    if not changed and not leftover:
        host.noop("all files are up to date")
        return
    # The check sees the whole set: a unit may name a file that did not change.
    script = install_script(files, changed, check, leftover)
    yield StringCommand("sh", "-c", shlex.quote(script), _stdin=archive(files))


@operation()
def held(
    run: str,
    known: Callable[[], Lease | None],
    keep: Callable[[Lease], None],
    on_busy: Callable[[], None],
):
    """
    Hold this host for a run until that ends, so that no other one changes it and its watchdog
    pauses. Changes nothing; fails the host where another run holds it.

    + run: the id of this run
    + known: returns the lease that the run has already; a host that rebooted has lost it
    + keep: takes the lease
    + on_busy: called where another run holds the host
    """
    lease = known() if host.state.is_executing else None
    if not host.state.is_executing or (lease is not None and lease.alive):
        host.noop("the host is held" if lease else "held when the run executes")
        return
    try:
        taken = take(host, run)
    except BusyHostError as error:
        on_busy()
        yield failing(f"nothing was changed: {error}, is at work on this host; wait for it, then "
                      "run again")  # fmt: skip
        return
    except (OSError, SSHException) as error:
        yield failing(f"nothing was changed: this host cannot be held: {error}")
        return
    if taken is not None:
        keep(taken)
    host.noop("the host is held")


def install_script(
    files: Sequence[HostFile],
    changed: Sequence[HostFile],
    check: str | None,
    leftover: Sequence[str],
) -> str:
    """The shell script that unpacks `files` from its standard input and installs `changed`."""
    lines = [
        "set -eu",
        "umask 077",
        "STAGE=$(mktemp -d) || exit 1",
        "export STAGE",
        "trap 'rm -rf \"$STAGE\"' EXIT",
        'base64 -d | tar -xf - -C "$STAGE"',
    ]
    if check:
        lines.append(f"( {check} ) || {{ echo 'the new files were not installed' >&2; exit 1; }}")
    for file in changed:
        path = shlex.quote(file.path)
        new = shlex.quote(f"{file.path}.pyinfra-new")
        lines += [
            f'(umask 022; mkdir -p "$(dirname {path})")',
            f'install -m {file.mode} -o {file.owner} -g {file.group} "$STAGE"{path} {new}',
            f"mv -f {new} {path}",
        ]
    lines += [f"rm -f {shlex.quote(path)}" for path in leftover]
    return "\n".join(lines)
