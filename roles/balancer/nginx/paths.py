"""The paths of nginx's files on a balancer."""

ROOT = "/etc/nginx"
FOLDER = f"{ROOT}/llm"
SITE = f"{ROOT}/conf.d/llm.conf"
UPSTREAMS = f"{FOLDER}/upstreams.conf"
KEYS = f"{FOLDER}/keys"
OLD_KEYS = f"{FOLDER}/keys.conf"
"""The keys of the one service that earlier versions served."""
SELF_SIGNED = f"{FOLDER}/self-signed.pem"
CERTIFICATE = f"{FOLDER}/certificate.pem"
CERTIFICATE_KEY = f"{FOLDER}/certificate.key"
LOADED = f"{FOLDER}/loaded"
"""Holds the digest of the files that nginx has loaded, so that the next run reloads nginx if a run
died between writing and loading."""
DEFAULT_SITE = f"{ROOT}/sites-enabled/default"
FILES = (SITE, UPSTREAMS, OLD_KEYS, SELF_SIGNED, CERTIFICATE, CERTIFICATE_KEY)
"""All files of the balancer except those in KEYS; some of them may be missing."""


def client_keys(service: str) -> str:
    """The file with the keys of a service's clients."""
    return f"{KEYS}/{service}.clients"


def engine_key(service: str) -> str:
    """The file with the key of a service's engines."""
    return f"{KEYS}/{service}.engine"
