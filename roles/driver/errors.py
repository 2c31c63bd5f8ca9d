"""What the errors of package managers mean, and what to do. Pure.

Sources of the messages: apt, dpkg (apt-get 2.4 to 3.0) and dnf 4.
"""

import re
import shlex
from collections.abc import Iterable

# (pattern of the output, meaning and remedy): the first match is printed.
ERROR_MEANINGS = (
    (
        "No space left|not enough free space|You don't have enough|needs [0-9]+ ?[KMG]B (more )?"
        "(space )?on|insufficient space",
        "the disk is full: make room (apt-get clean, old kernels, logs) and deploy again; what was "
        "begun is then brought to its end",
    ),
    (
        "NO_PUBKEY|not signed|EXPKEYSIG|BADSIG|signatures? (was|were|couldn't|could not|is|are)|"
        "GPG check FAILED|public key",
        "the repository is signed by another key than the one that is trusted, or not at all; "
        "check driver.mirror, and give the key of a mirror by driver.mirror_key_file",
    ),
    (
        " 404 |[Ss]tatus code: 404|does not have a Release file|Hash Sum mismatch.*404",
        "the repository has no such file (HTTP 404): check driver.mirror and whether it has a "
        "folder for this system; a mirror that was just updated needs its index refreshed",
    ),
    (
        " 40[13] |[Ss]tatus code: 40[13]",
        "the repository refuses (HTTP 401 or 403): check driver.mirror and its access rules",
    ),
    (
        "Hash Sum mismatch|File has unexpected size|[Cc]hecksum|Release file .* expired",
        "the repository changed while it was read, or a proxy keeps an old copy of it: deploy "
        "again in some minutes, or repair the mirror",
    ),
    (
        "Could not resolve|Temporary failure resolving|Could not connect|Connection timed out|"
        "Connection refused|Connection failed|Network is unreachable|Failed to connect|"
        "Unable to connect|Curl error|Cannot download|Failed to download",
        "the repository cannot be reached from this host: check the network, DNS and proxy, or "
        "give a mirror by driver.mirror",
    ),
    (
        "Could not get lock|is locked by another process|Unable to acquire the dpkg frontend lock|"
        "is another process using it|[Ww]aiting for process",
        "another program installs packages (unattended-upgrades, cloud-init): wait for it and "
        "deploy again",
    ),
    (
        "unmet dependencies|held broken packages|conflicting requests|nothing provides|"
        "Depends: .* but",
        "the packages do not fit together: look for other repositories of NVIDIA's driver on the "
        "host (apt-cache policy, dnf repolist) and for packages that are held",
    ),
    (
        "Unable to locate package|has no installation candidate|Unable to find a match|"
        "No match for argument|Version .* was not found|missing groups or modules|"
        "Unable to resolve argument",
        "the repository does not have that package: check driver.branch, driver.version and "
        "driver.source",
    ),
    (
        "Error! Bad return status for module build|Bad return status|error: dkms|dkms.*failed|"
        "installed (nvidia|amdgpu).*post-installation script",
        "DKMS could not build the module: look at /var/lib/dkms/*/*/build/make.log; the headers, "
        "or the compiler, may not fit the kernel",
    ),
    (
        "dpkg was interrupted|dpkg --configure -a",
        "an earlier installation was cut off and cannot be finished: run dpkg --configure -a on "
        "the host and see",
    ),
)


# The lines of an error: dnf's continue to the end, those of apt and dpkg on indented lines.
_ERRORS = (
    "/^Error:/ {all = 1} "
    "/^(E|W|Err|error|dpkg: error)[:! ]|^ +(40|50)[0-9] |[Ss]tatus code|Curl error/ "
    "{go = 1; print; next} "
    "all || (go && /^ /) {print; next} {go = 0}"
)


def explaining_script(commands: Iterable[str]) -> str:
    """A script that runs commands in order, and explains the failure of one."""
    lines = [
        "set -u",
        "export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1 LC_ALL=C",
        # On a full disk the error must still be shown.
        "log=$(mktemp 2>/dev/null || mktemp -p /dev/shm) || exit 1",
        "trap 'rm -f \"$log\"' EXIT",
        "tell() {",
        f"said=$(awk {shlex.quote(_ERRORS)} \"$log\" | awk '!seen[$0]++' | tail -n 12)",
        'if [ -n "$said" ]; then echo "$said"; else tail -n 6 "$log"; fi >&2',
        *_meanings(),
        "exit 1",
        "}",
        # Otherwise dnf and apt would read the script's standard input.
        'run() { "$@" >"$log" 2>&1 </dev/null || tell; }',
        *commands,
    ]
    return "\n".join(lines)


def _meanings() -> list[str]:
    lines = []
    for number, (pattern, words) in enumerate(ERROR_MEANINGS):
        lines.append(f'{"el" if number else ""}if grep -qE {shlex.quote(pattern)} "$log"; then')
        lines.append(f"echo {shlex.quote('driver: ' + words)} >&2")
    return [*lines, "fi"]


def meaning_of(text: str) -> str | None:
    """The meaning of a package manager's error, and the remedy; None if it is unknown."""
    return next((words for pattern, words in ERROR_MEANINGS if re.search(pattern, text)), None)


def error_lines(errors: str) -> list[str]:
    """The lines of a package manager's errors, and their meaning."""
    means = meaning_of(errors)
    return [*errors.splitlines(), *([f"driver: {means}"] if means else [])]
