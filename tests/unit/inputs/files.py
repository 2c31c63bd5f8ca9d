"""Files that an inventory may name: good ones, and what is wrong with others."""

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

KEY = "k" * 32
PROXY = "proxy_pass http://llm_q;"
SITE = "server {\n  include {{ upstreams_file }};\n  location / { " + PROXY + " }\n}\n"
# Files that hold secrets: name, text.
SECRETS = {
    "api.key": f"{KEY}\n",
    "copy.key": f"{KEY}\n",
    "empty.key": "",
    "blank.key": "   \n",
    "short.key": "abc\n",
    "two-lines.key": f"{KEY}\n{KEY}\n",
    "spaces.key": f"{KEY} {KEY}\n",
    "quoted.key": f'"{KEY}"\n',
    "long.key": "k" * 100_000,
    "kilobytes.key": "k" * 2000,
    "empty.token": "",
    "blank.token": " \n\t\n",
    "two-lines.token": "hf_abc\nhf_def\n",
    "words.token": "my token is hf_abc\n",
    "long.token": "hf_" + "a" * 5000,
    "good.token": "hf_abcdefghijklmnop\n",
}


def locked(*packages: str) -> str:
    """A lock of these packages and of the installer, with hashes."""
    hashed = f" \\\n    --hash=sha256:{'0' * 64}\n"
    return "".join(package + hashed for package in (*packages, "uv==0.13.8"))


TEXTS = {
    "empty.j2": "",
    "blank.j2": "\n\n  \n",
    "no-upstream.j2": "server {\n  include {{ upstreams_file }};\n  return 503;\n}\n",
    "no-include.j2": "server {\n  location / { " + PROXY + " }\n}\n",
    "open.j2": SITE + "server {\n",
    "closed.j2": SITE + "}\n",
    "unknown-variable.j2": SITE + "# {{ nobody_knows }}\n",
    "syntax.j2": SITE + "{% if %}\n",
    "endless-if.j2": SITE + "{% if ipv6 %}\n",
    "long-loops.j2": SITE + "{% for i in range(99999) %}" * 2 + "{% endfor %}" * 2,
    "large.j2": SITE + "{{ 'a' * 10**10 }}\n",
    "nul.j2": SITE + "# \0\n",
    "good.j2": SITE,
    "good.lock": locked("vllm==0.33.0", "torch==2.14.0"),
    "older.lock": locked("vllm==0.32.0", "torch==2.13.0"),
    "without.lock": locked("torch==2.14.0", "numpy==2.1.0"),
    "empty.lock": "",
    "loose.lock": "vllm>=0.33.0\n",
}


def make(folder: Path) -> None:
    """Make all of them in a folder."""
    for name, text in SECRETS.items():
        private(folder / name, text.encode())
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    private(folder / "binary.key", bytes(range(128, 256)))
    private(folder / "binary.token", b"\xff\xfe\x00token")
    (folder / "binary.j2").write_bytes(b"\xff\xfe\x00")
    (folder / "binary.lock").write_bytes(b"\x80\x81")
    (folder / "shared.key").write_text(f"{KEY}\n")
    (folder / "shared.key").chmod(0o644)
    (folder / "shared.token").write_text("hf_abc\n")
    (folder / "shared.token").chmod(0o640)
    (folder / "folder").mkdir()
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "fifo", 0o600)
    _certificates(folder)


def private(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    file.chmod(0o600)


def _certificates(folder: Path) -> None:
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    private(folder / "tls.key", plain)
    private(folder / "cut-tls.key", plain[: len(plain) // 2])
    private(
        folder / "other-tls.key",
        other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    private(
        folder / "encrypted-tls.key",
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
    )
    now = datetime.now(UTC)
    good = certificate(key, now - timedelta(days=1), now + timedelta(days=30))
    authority = certificate(other, now - timedelta(days=1), now + timedelta(days=30))
    weak = rsa.generate_private_key(65537, 1024)
    private(
        folder / "weak-tls.key",
        weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    certificates = {
        "weak.crt": certificate(weak, now - timedelta(days=1), now + timedelta(days=30)),
        "client.crt": certificate(
            key, now - timedelta(days=1), now + timedelta(days=30), use="CLIENT_AUTH"
        ),
        "server.crt": certificate(
            key, now - timedelta(days=1), now + timedelta(days=30), use="SERVER_AUTH"
        ),
        "foreign.crt": good
        + certificate(other, now - timedelta(days=1), now + timedelta(days=30), subject="other"),
        "tls.crt": good,
        "expired.crt": certificate(key, now - timedelta(days=90), now - timedelta(days=2)),
        "future.crt": certificate(key, now + timedelta(days=2), now + timedelta(days=90)),
        "cut.crt": good[: len(good) // 2],
        "torn.crt": good[:100] + good[140:],
        "reversed.crt": authority + good,
        "request.crt": request(key),
        "key-as.crt": plain,
        "der.crt": x509.load_pem_x509_certificate(good).public_bytes(Encoding.DER),
        "nameless.crt": certificate(key, now - timedelta(days=1), now + timedelta(days=9), ()),
        "expired-chain.crt": good
        + certificate(other, now - timedelta(days=90), now - timedelta(days=2)),
    }
    for name, data in certificates.items():
        private(folder / name, data)


def certificate(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    first: datetime,
    last: datetime,
    names: tuple[str, ...] = ("llm.example.com", "*.chat.example.com"),
    use: str | None = None,
    subject: str = "llm.example.com",
) -> bytes:
    """A self-signed certificate for names (and 10.0.0.10) and a use, as PEM."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
    )
    if names:
        alternative = [x509.DNSName(name) for name in names]
        address = x509.IPAddress(ip_address("10.0.0.10"))
        extension = x509.SubjectAlternativeName([*alternative, address])
        builder = builder.add_extension(extension, critical=False)
    if use:
        uses = x509.ExtendedKeyUsage([getattr(ExtendedKeyUsageOID, use)])
        builder = builder.add_extension(uses, critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request for a certificate, as PEM."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "llm.example.com")])
    builder = x509.CertificateSigningRequestBuilder(subject)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
