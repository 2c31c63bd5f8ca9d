"""Shell commands about the files that a balancer's program has loaded, and those that are there.

A program that died between writing and loading is found by the digests of both.
"""

from collections.abc import Sequence


def digest_command(patterns: Sequence[str]) -> str:
    """A command that prints the digest of files; those that are missing do not count."""
    return f"cat {' '.join(patterns)} 2>/dev/null | sha256sum | cut -d' ' -f1"


def record_script(digest: str, path: str) -> str:
    """A script that records the present digest as loaded."""
    return f"umask 077; {digest} > {path}"


def state_lines(unit: str, digest: str, path: str) -> str:
    """A command that prints four lines: whether a unit is enabled and active, the present digest,
    and the one that was recorded as loaded."""
    return (
        f'echo "$(systemctl is-enabled {unit} 2>/dev/null)"; '
        f'echo "$(systemctl is-active {unit} 2>/dev/null)"; '
        f'echo "$({digest})"; echo "$(cat {path} 2>/dev/null)"'
    )
