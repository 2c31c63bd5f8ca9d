"""Signing keys of repositories: their fingerprint, and the text that apt and rpm read. Pure."""

import base64
import binascii
import hashlib
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BEGIN, _END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
# RFC 4880, 4.3: tags of the primary key and of its parts (signatures, user ids, subkeys, images).
_PRIMARY, _OWN, _TRUST = 6, (2, 13, 14, 17), 12
# Vendors' keys have a few KB; this detects a captive portal's page or a wrong file.
_MAX_BYTES = 65536
_NO_KEY = "not a signing key (OpenPGP, as text or binary)"


def armoured(key: bytes) -> str:
    """A key in text form, from text or binary; ValueError if the data is not exactly one key."""
    return _text(_one(key))


def fingerprint(key: bytes) -> str:
    """The fingerprint of the one key in a file (RFC 4880, 12.2).

    ValueError if there is none or more than one: apt and rpm trust every key in a file.
    """
    return _fingerprint(_one(key))


def own_key(file: Path) -> str:
    """The user's key as text; ValueError if the file cannot be read or is not exactly one key."""
    try:
        with file.open("rb") as opened:
            return armoured(opened.read(_MAX_BYTES + 1))
    except OSError as error:
        raise ValueError(f"driver.mirror_key_file: {file}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"driver.mirror_key_file: {file}: {error}") from None


def vendor_key(key: bytes, url: str, expected: str) -> str:
    """The expected key from a fetched file, as text and without the file's other keys.

    ValueError if the file lacks it.
    """
    try:
        found = {_fingerprint(one): one for one in _keys(key)}
    except ValueError as error:
        raise ValueError(f"driver: {url}: {error}") from None
    if expected not in found:
        raise ValueError(
            f"driver: {url} has the key {', '.join(found)}, {expected} was expected; nothing is "
            "installed from there. A mirror's own key is given by driver.mirror_key_file"
        )
    return _text(found[expected])


@dataclass(frozen=True)
class _Packet:
    tag: int
    body: bytes
    whole: bytes


def _one(key: bytes) -> list[_Packet]:
    found = _keys(key)
    if len(found) > 1:
        raise ValueError(
            f"it holds {len(found)} keys ({', '.join(map(_fingerprint, found))}), and all of them "
            "would be trusted; one is expected"
        )
    return found[0]


def _keys(key: bytes) -> list[list[_Packet]]:
    """Each primary key with its parts; ValueError if the file holds anything but keys."""
    if len(key) > _MAX_BYTES:
        raise ValueError(f"not a signing key: more than {_MAX_BYTES} bytes")
    keys: list[list[_Packet]] = []
    for packet in _packets(_binary(key)):
        if packet.tag == _TRUST:
            # Trust data of the keyring that exported it.
            continue
        if packet.tag == _PRIMARY:
            keys.append([])
        elif not keys or packet.tag not in _OWN:
            raise ValueError(_NO_KEY)
        keys[-1].append(packet)
    if not keys:
        raise ValueError(_NO_KEY)
    return keys


def _fingerprint(key: list[_Packet]) -> str:
    body = key[0].body
    if body[:1] != b"\x04":
        raise ValueError(f"an OpenPGP key of version {body[0] if body else '?'}; 4 is expected")
    framed = b"\x99" + len(body).to_bytes(2, "big") + body
    return hashlib.sha1(framed, usedforsecurity=False).hexdigest().upper()


def _text(key: list[_Packet]) -> str:
    data = b"".join(packet.whole for packet in key)
    lines = textwrap.wrap(base64.b64encode(data).decode(), 64)
    check = base64.b64encode(_crc24(data).to_bytes(3, "big")).decode()
    return "\n".join([_BEGIN, "", *lines, f"={check}", _END, ""])


def _binary(key: bytes) -> bytes:
    """The packets of all blocks of a text, or of binary data."""
    if not key.lstrip().startswith(b"-----BEGIN PGP"):
        return key
    blocks = key.decode("ascii", "replace").split("-----BEGIN PGP")[1:]
    return b"".join(_block(block.strip().splitlines()) for block in blocks)


def _block(lines: list[str]) -> bytes:
    # Headers end at the first blank line; the checksum is the line that begins with "=".
    blank = next((number for number, line in enumerate(lines) if not line.strip()), 0)
    end = next((n for n, line in enumerate(lines) if line.startswith("-----END")), len(lines))
    body = [line.strip() for line in lines[blank + 1 : end] if not line.startswith("=")]
    try:
        return base64.b64decode("".join(body), validate=True)
    except binascii.Error as error:
        raise ValueError(f"not a signing key: {error}") from None


def _packets(data: bytes) -> Iterator[_Packet]:
    """All packets (RFC 4880, 4.2); ValueError for indefinite lengths, which public keys never
    have."""
    at = 0
    while at < len(data):
        first, new = data[at], bool(data[at] & 0x40)
        tag = first & 0x3F if new else (first >> 2) & 0x0F
        size, length = (_new_length if new else _old_length)(data[at : at + 6])
        start = at + size
        # A key's own length is hashed as two bytes.
        too_long = length > len(data) - start or (tag == _PRIMARY and length > 0xFFFF)
        if not first & 0x80 or too_long:
            raise ValueError(_NO_KEY)
        yield _Packet(tag, data[start : start + length], data[at : start + length])
        at = start + length


def _new_length(head: bytes) -> tuple[int, int]:
    if len(head) < 2 or 224 <= head[1] < 255 or (192 <= head[1] < 224 and len(head) < 3):
        raise ValueError(_NO_KEY)
    if head[1] < 192:
        return 2, head[1]
    if head[1] < 224:
        return 3, ((head[1] - 192) << 8) + head[2] + 192
    return 6, int.from_bytes(head[2:6], "big")


def _old_length(head: bytes) -> tuple[int, int]:
    size = {0: 1, 1: 2, 2: 4}.get(head[0] & 3)
    if size is None or len(head) < 1 + size:
        raise ValueError(_NO_KEY)
    return 1 + size, int.from_bytes(head[1 : 1 + size], "big")


def _crc24(data: bytes) -> int:
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc & 0xFFFFFF
