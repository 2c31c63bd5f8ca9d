"""The balancer's self-signed certificate: its names, and the script that makes it."""

import shlex
from collections.abc import Collection
from ipaddress import ip_address

DAYS = 825
RENEW_DAYS = 30


def alternative_names(*called: str) -> tuple[str, ...]:
    """The names that clients use for the balancer, as OpenSSL writes them: `DNS:name`,
    `IP:address`."""
    names = [name for name in called if name != "_"]
    return tuple(dict.fromkeys(_alternative_name(name) for name in names))


def _alternative_name(name: str) -> str:
    try:
        return f"IP:{ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def parse_names(text: str) -> frozenset[str]:
    """The names that `openssl x509 -ext subjectAltName` printed; empty where there are none."""
    names = set()
    for part in text.replace("\n", ",").split(","):
        kind, _, value = part.strip().partition(":")
        if kind == "DNS":
            names.add(f"DNS:{value}")
        elif kind == "IP Address":
            names.add(_alternative_name(value))
    return frozenset(names)


def names_command(path: str) -> str:
    """A command that prints the names of a certificate, if it stays valid for RENEW_DAYS."""
    file = shlex.quote(path)
    return (
        f"openssl x509 -in {file} -noout -checkend {RENEW_DAYS * 86400} >/dev/null 2>&1 "
        f"&& openssl x509 -in {file} -noout -ext subjectAltName || true"
    )


def make_script(path: str, names: Collection[str]) -> str:
    """A shell script that makes a certificate and its key in one file that only root can read.

    It is one file, because two files cannot be replaced atomically.
    """
    file = shlex.quote(path)
    extensions = (
        f"subjectAltName={','.join(names)}",
        # Strict clients (Python 3.13) require these two.
        "keyUsage=critical,digitalSignature,keyCertSign",
        "extendedKeyUsage=serverAuth",
    )
    addext = " ".join(f"-addext {shlex.quote(extension)}" for extension in extensions)
    return f"""set -eu
(umask 022; mkdir -p "$(dirname {file})")
umask 077
STAGE=$(mktemp -d {file}.XXXXXX)
trap 'rm -rf "$STAGE"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days {DAYS} \\
    -subj /CN=pyinfra-llm {addext} -keyout "$STAGE/key" -out "$STAGE/crt" 2>"$STAGE/log" \\
    || {{ cat "$STAGE/log" >&2; exit 1; }}
cat "$STAGE/crt" "$STAGE/key" > "$STAGE/pem"
mv -f "$STAGE/pem" {file}"""
