"""The paths of HAProxy's files on a balancer."""

ROOT = "/etc/haproxy"
MAIN = f"{ROOT}/haproxy.cfg"
"""The package's own file; it is left alone."""
FOLDER = f"{ROOT}/llm"
SITE = f"{FOLDER}/llm.cfg"
UPSTREAMS = f"{FOLDER}/upstreams.cfg"
KEYS = f"{FOLDER}/keys"
SELF_SIGNED = f"{FOLDER}/self-signed.pem"
CERTIFICATE = f"{FOLDER}/certificate.pem"
CERTIFICATE_KEY = f"{CERTIFICATE}.key"
"""HAProxy looks for the key of a certificate here."""
LOADED = f"{FOLDER}/loaded"
"""Holds the digest of the files that HAProxy has loaded, so that the next run reloads it if a run
died between writing and loading."""
SERVICE = "/etc/systemd/system/haproxy.service.d/llm.conf"
"""Has HAProxy load our files beside the package's."""
DRAINED = f"{FOLDER}/drained"
"""Has the commands by which old workers stop sending requests to drained members."""
LOADS = (SITE, UPSTREAMS)
"""The files of configuration, in the order in which HAProxy reads them."""
FILES = (*LOADS, DRAINED, SELF_SIGNED, CERTIFICATE, CERTIFICATE_KEY, SERVICE)
"""All files of the balancer except those in KEYS; some of them may be missing."""
PID = "/run/haproxy.pid"
MASTER = "/run/haproxy-master.sock"
"""Where the package's unit has the master process listen for commands."""


def client_keys(service: str) -> str:
    """The file with the keys of a service's clients."""
    return f"{KEYS}/{service}.clients"


def engine_key(service: str) -> str:
    """The file with the key of a service's engines."""
    return f"{KEYS}/{service}.engine"
