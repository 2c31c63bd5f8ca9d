"""Files on the control machine that settings name: texts, keys and certificates, checked."""

import re
import ssl
from pathlib import Path

# The syntax of a Bearer token (RFC 6750). It holds nothing that nginx's configuration, an
# environment file or a shell could take for more than text.
KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*")
KEY_LENGTH = 16


def read(path: Path) -> str:
    """The text of a file on the control machine; ValueError says what is wrong with it."""
    try:
        return path.expanduser().read_text()
    except FileNotFoundError:
        message = f"{path} is not there: create it, or correct the path (now at {Path.cwd()})"
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}"
    raise ValueError(message)


def check_private(path: Path) -> None:
    """ValueError where others than the owner have any right to the file."""
    mode = path.expanduser().stat().st_mode & 0o777
    if mode & 0o077:
        raise ValueError(f"others may read {path} (mode {mode:o}): run chmod 600 {path}")


def check_pair(certificate: Path, key: Path) -> None:
    """ValueError where a key is not the certificate's; what else is wrong with them nginx says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The password keeps OpenSSL from asking for one.
        context.load_cert_chain(certificate.expanduser(), key.expanduser(), password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key} is not the key of {certificate}: give its own") from error


def read_key(path: Path) -> str:
    """The key in a file of one line; ValueError without the key in it where it is not one."""
    key = read(path).removesuffix("\n").removesuffix("\r")
    check_private(path)
    if not key:
        raise ValueError(f"{path} is empty: write a key into it, e.g. from `openssl rand -hex 32`")
    if len(key.splitlines()) > 1:
        raise ValueError(f"{path} has more than one line: leave the key alone in it")
    if not KEY.fullmatch(key):
        raise ValueError(f"the key in {path} may hold only letters, digits and - . _ ~ + / =")
    if len(key) < KEY_LENGTH:
        raise ValueError(f"the key in {path} has fewer than {KEY_LENGTH} characters: take more")
    return key
