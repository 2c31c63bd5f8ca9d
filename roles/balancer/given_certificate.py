"""Checks of a certificate and key from the inventory, made before any host is contacted."""

from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from roles.host import read_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
    from cryptography.x509 import Certificate

# OpenSSL 3 takes no less by default.
_MIN_RSA_BITS = 2048
_CERTIFICATE, _REQUEST, _KEY = "CERTIFICATE-----", "CERTIFICATE REQUEST-----", "PRIVATE KEY-----"


def check_certificate(certificate: Path, key: Path, server_name: str, now: datetime) -> None:
    """ValueError, with the field's name, where clients would not trust a balancer with these files.

    The root of the chain is not checked, as it may be a private authority.
    """
    chain = _chain(certificate)
    public = _public_key(key)
    if chain[0].public_key() != public:
        if any(one.public_key() == public for one in chain):
            problem = f"{certificate} does not begin with the server's certificate: put it first"
        else:
            problem = f"{key} is not the key of {certificate}: give its own"
        raise ValueError(f"certificate_key_file: {problem}")
    problem = next(filter(None, (_time_problem(one, now) for one in chain)), None)
    problem = problem or next(filter(None, map(_weakness, chain)), None)
    problem = problem or _use_problem(chain[0]) or _order_problem(chain)
    problem = problem or _name_problem(chain[0], server_name)
    if problem:
        raise ValueError(f"certificate_file: {certificate} {problem}")


def check_name(certificate: Path, server_name: str) -> None:
    """ValueError where a certificate is not for a name."""
    if problem := _name_problem(_chain(certificate)[0], server_name):
        raise ValueError(f"{certificate} {problem}")


def _chain(file: Path) -> "Sequence[Certificate]":
    from cryptography.x509 import load_pem_x509_certificates

    text = read_text(file)
    if f"-----BEGIN {_CERTIFICATE}" not in text:
        what = "is no certificate; give the server's, with its chain, as PEM"
        if _REQUEST in text:
            what = "is a request; give the certificate that the authority made of it"
        elif _KEY in text:
            what = "is a key; is it swapped with certificate_key_file? give the certificate"
        raise ValueError(f"certificate_file: {file} {what}")
    try:
        chain = load_pem_x509_certificates(text.encode())
        # A certificate can be read while its key is damaged.
        return [one for one in chain if one.public_key()]
    except Exception as error:  # the library raises more than ValueError
        what = "is cut or damaged; copy it again"
        raise ValueError(f"certificate_file: {file} {what}") from error


def _public_key(file: Path) -> "CertificatePublicKeyTypes":
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = read_text(file)
    try:
        if _KEY not in text and _CERTIFICATE in text:
            what = "is a certificate; is it swapped with certificate_file? give the key"
            raise ValueError(f"certificate_key_file: {file} {what}")
        return load_pem_private_key(_private_part(text).encode(), None).public_key()  # type: ignore
    except TypeError:
        what = f"is encrypted; deploys cannot enter a password: decrypt it, openssl pkey -in {file}"
    except Exception as error:  # the library raises more than ValueError
        if str(error).startswith("certificate_key_file"):
            raise
        what = "is no private key, or cut or damaged; copy it again"
    raise ValueError(f"certificate_key_file: {file} {what}")


def _private_part(text: str) -> str:
    """The private key in a file that may begin with the parameters of its curve."""
    end = text.find(_KEY)
    start = text.rfind("-----BEGIN ", 0, end)
    return text[start:] if start >= 0 else text


def _time_problem(certificate: "Certificate", now: datetime) -> str | None:
    if certificate.not_valid_before_utc > now:
        first = f"{certificate.not_valid_before_utc:%Y-%m-%d}"
        return f"is not valid before {first}; give one that is, or set the clock"
    if certificate.not_valid_after_utc < now:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}; renew it"
    return None


def _weakness(certificate: "Certificate") -> str | None:
    """Why TLS libraries refuse a certificate's key."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    key = certificate.public_key()
    if isinstance(key, RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        return f"has an RSA key of {key.key_size} bits; have one made of {_MIN_RSA_BITS} or more"
    return None


def _use_problem(certificate: "Certificate") -> str | None:
    """Why clients refuse a certificate as a server's."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    if {Usage.SERVER_AUTH, Usage.ANY_EXTENDED_KEY_USAGE} & set(uses):
        return None
    return "is for no server (extendedKeyUsage lacks serverAuth); have one made that is"


def _order_problem(chain: "Sequence[Certificate]") -> str | None:
    """Why clients cannot follow a chain."""
    if all(one.issuer == following.subject for one, following in pairwise(chain)):
        return None
    return "is not in order: let each certificate be followed by the one that signed it"


def _name_problem(certificate: "Certificate", server_name: str) -> str | None:
    """Why clients that use this name refuse a certificate; None for `_`, which is no name."""
    from cryptography import x509

    if server_name == "_":
        return None
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return f"has no names (subjectAltName), so not {server_name}; have one made with it"
    texts = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    texts += map(str, names.get_values_for_type(x509.IPAddress))
    if any(_covers(text, server_name.lower()) for text in texts):
        return None
    shown = ", ".join(texts[:5]) or "nothing"
    return f"is for {shown}, not for server_name {server_name}; make them agree"


def _covers(pattern: str, name: str) -> bool:
    try:
        return str(ip_address(name)) == pattern
    except ValueError:
        wild = pattern.startswith("*.") and name.partition(".")[2] == pattern[2:]
        return pattern == name or wild
