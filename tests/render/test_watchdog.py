"""The watchdog's files, whole, read by systemd and nft; its helper with nft's real rules."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from roles.host import paths
from roles.watchdog import HostWatch, PeerHost, ServiceWatch, WatchdogSettings
from roles.watchdog.program import helper_program
from roles.watchdog.render import HELPER_UNIT, SOCKET, UNIT, configuration, rules, watchdog_files
from roles.watchdog.settings import USER
from tests.render.test_launch import EXPECTED, needs


def host_watch(**more: Any) -> HostWatch:
    return HostWatch(
        **{
            "host": "gpu1",
            "listen_address": "0.0.0.0",
            "settings": WatchdogSettings(),
            "services": {"qwen": ServiceWatch(), "unwatched": ServiceWatch(enabled=False)},
            "start_timeout_s": 1800,
            "engines": {"kind": {"path": "/metrics", "steps": ["s"], "pending": [], "keyed": True}},
            "peers": (PeerHost("gpu2", "10.0.0.12", {"qwen-1": "qwen"}),),
            "allowed": ("10.0.0.1", "10.0.0.12", "fd00::9"),
            "gpu_names": {0: "NVIDIA H200"},
            **more,
        }
    )


def rendered(**more: Any) -> dict[str, str]:
    return {file.path: file.content for file in watchdog_files(host_watch(**more))}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (paths.WATCHDOG_SETTINGS, "watchdog.json"),
        (paths.WATCHDOG_RULES, "watchdog.nft"),
        (UNIT, "llm-watchdog.service"),
        (SOCKET, "llm-watchdog-helper.socket"),
        (HELPER_UNIT, "llm-watchdog-helper.service"),
    ],
)
def test_whole_files(path: str, expected: str):
    assert rendered()[path] == (EXPECTED / expected).read_text()


def test_where_nothing_is_watched_there_is_no_file():
    assert rendered(services={}) == {}
    assert rendered(services={"qwen": ServiceWatch(enabled=False)}) == {}


def units(folder: Path, **more: Any) -> list[Path]:
    """The units in a folder; programs that are on hosts alone are replaced by /bin/true."""
    files = {path: text for path, text in rendered(**more).items() if path.startswith(paths.UNITS)}
    written = []
    for path, text in files.items():
        if "/llm-engine@" not in path:
            one = folder / Path(path).name
            one.write_text(re.sub(r"/usr/sbin/nft|/usr/bin/python3", "/bin/true", text))
            written.append(one)
    return written


@pytest.mark.parametrize("metrics_dir", ["/var/lib/llm/metrics", "/srv/metrics"])
def test_systemd_reads_the_units(tmp_path: Path, metrics_dir: str):
    needs("systemd-analyze")
    settings = WatchdogSettings.model_validate({"metrics_dir": metrics_dir})
    named = [str(path) for path in units(tmp_path, settings=settings)]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *named], capture_output=True, text=True
    )
    ours = [line for line in done.stderr.splitlines() if "llm-" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize(
    # The helper is root, with the capabilities that its commands need.
    ("name", "most"),
    [(paths.WATCHDOG_UNIT, 2.5), (paths.WATCHDOG_HELPER_UNIT, 4.0)],
)
def test_the_units_are_hardened(tmp_path: Path, name: str, most: float):
    needs("systemd-analyze")
    (path,) = [one for one in units(tmp_path) if one.name == name]
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={most * 10:.0f}", path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-500:]


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="nft needs root")


def in_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """A shell script in a network namespace of its own, with nobody else's rules."""
    return subprocess.run(
        ["unshare", "--net", "sh", "-ec", script], capture_output=True, text=True, timeout=60
    )


@root_only
@pytest.mark.parametrize("firewall", [True, False])
def test_nft_reads_the_rules_twice(tmp_path: Path, firewall: bool):
    needs("nft")
    # The user is not on this machine.
    text = rules(host_watch(firewall=firewall)).replace(USER, "daemon")
    (tmp_path / "rules.nft").write_text(text)
    table = f"inet {paths.WATCHDOG_TABLE}"
    done = in_namespace(
        f"nft -f {tmp_path}/rules.nft; nft add element {table} closed '{{ 8000 timeout 60s }}'; "
        f"nft list table {table} >{tmp_path}/once; nft -f {tmp_path}/rules.nft; "
        f"nft list table {table} >{tmp_path}/twice"
    )
    assert done.returncode == 0, done.stderr
    once, twice = ((tmp_path / name).read_text() for name in ("once", "twice"))
    # No rule twice, and what was closed stays so.
    assert re.sub("expires.*", "", once) == re.sub("expires.*", "", twice)
    assert "8000" in once
    assert ("tcp dport 7440 drop" in once) is firewall


PORT = 18431
LISTEN = f"""
import socket, sys
server = socket.create_server(("127.0.0.1", {PORT}))
before = socket.create_connection(("127.0.0.1", {PORT}))
print("up", flush=True)
sys.stdin.readline()
before.sendall(b"x")
print(server.accept()[0].recv(1).decode(), flush=True)
"""
CONNECT = f"""
import os, socket, sys
os.setuid(int(sys.argv[1]))
try:
    socket.socket().connect(("127.0.0.1", {PORT}))
    print("taken")
except ConnectionRefusedError:
    print("refused")
"""


@root_only
def test_a_closed_port_refuses_new_connections_of_others_at_once(tmp_path: Path):
    needs("nft")
    helper = Helper(tmp_path)
    (tmp_path / "listen.py").write_text(LISTEN)
    (tmp_path / "connect.py").write_text(CONNECT)
    tmp_path.chmod(0o755)
    connect = f"{sys.executable} {tmp_path}/connect.py"
    script = f"""
    ip link set lo up
    mkfifo {tmp_path}/go
    {sys.executable} {tmp_path}/listen.py <{tmp_path}/go >{tmp_path}/listened &
    exec 3>{tmp_path}/go
    until grep -q up {tmp_path}/listened; do sleep 0.1; done
    {helper.command("close")}
    {connect} 65534; {connect} 0; {connect} 1
    nft list set inet {paths.WATCHDOG_TABLE} closed | grep -o 'timeout 1m'
    echo >&3; wait $!; tail -n 1 {tmp_path}/listened
    {helper.command("close")}
    {helper.command("open")}
    {helper.command("open")}
    nft list set inet {paths.WATCHDOG_TABLE} closed | grep -c elements || true
    """
    done = in_namespace(script)
    assert done.returncode == 0, done.stderr + done.stdout
    # Nobody's (a balancer's, say), root's and the watchdog's, which is "daemon" here.
    assert done.stdout.split("\n")[1:4] == ["refused", "taken", "taken"]
    assert done.stdout.split("\n")[4:6] == ["timeout 1m", "x"]
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert answers == [{"ok": True}] * 4
    assert done.stdout.splitlines()[-1] == "0"


ASK = """
import os, socket, subprocess, sys
folder = sys.argv[1]
path = folder + "/helper.sock"
if os.path.exists(path):
    os.unlink(path)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
# As systemd hands it over.
os.dup2(listener.fileno(), 3)
program = [sys.executable, "-I", folder + "/helper.py", folder + "/watchdog.json"]
helper = subprocess.Popen(program, pass_fds=[3])
# A helper that ends is seen.
os.closerange(3, 5)
try:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(sys.stdin.buffer.read())
        connection.shutdown(socket.SHUT_WR)
        print(connection.makefile().read(), end="", flush=True)
finally:
    helper.terminate()
    helper.wait()
"""


class Helper:
    """The helper's program with the manifest of a host."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        replicas = folder / "replicas"
        for name, key in (("qwen-0", "secret-key\nolder-key\n"), ("qwen-1", None)):
            (replicas / name / "1").mkdir(parents=True)
            if key:
                (replicas / name / "1" / "keys").write_text(key)
        entries = [
            {"name": name, "service": "qwen", "model": "m", "engine": "e", "gpus": [0],
             "port": PORT, "folder": f"{replicas}/{name}/1"}
            for name in ("qwen-0", "qwen-1")
        ]  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps({"replicas": entries}))
        (folder / "rules.nft").write_text(rules(host_watch()).replace(USER, "daemon"))
        (folder / "lock").touch()
        own = {
            "manifest": f"{folder}/manifest.json",
            "replicas": str(replicas),
            "rules": f"{folder}/rules.nft",
            "quarantine": f"{folder}/quarantine",
            "evidence": f"{folder}/evidence",
            "rebooted": f"{folder}/rebooted",
            "locks": [f"{folder}/lock"],
        }
        (folder / "helper.py").write_text(helper_program())
        (folder / "ask.py").write_text(ASK)
        (folder / "watchdog.json").write_text(
            json.dumps({**configuration(host_watch()), **own, **config})
        )

    def command(self, do: str, replica: str = "qwen-0") -> str:
        """A shell command that sends it a command."""
        text = json.dumps({"do": do, "replica": replica})
        return f"echo '{text}' | {sys.executable} {self.folder}/ask.py {self.folder}"

    def ask(self, line: str | bytes, path: str = "") -> dict[str, Any]:
        """The answer to a line; programs are looked for in the folder first."""
        done = subprocess.run(
            [sys.executable, self.folder / "ask.py", self.folder],
            input=line if isinstance(line, bytes) else line.encode(),
            env={"PATH": f"{self.folder}:{path or os.environ['PATH']}"},
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def do(self, do: str, replica: str = "qwen-0", **more: str) -> dict[str, Any]:
        return self.ask(json.dumps({"do": do, "replica": replica, **more}) + "\n")

    def program(self, name: str, text: str) -> None:
        """A program of the host that notes its arguments."""
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.folder}/ran\n{text}\n')
        path.chmod(0o755)

    @property
    def ran(self) -> list[str]:
        file = self.folder / "ran"
        return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize(
    "line",
    [
        "", "\n", "{", "[]", "5", "null", "{}", '{"do": "restart"}', '{"replica": "qwen-0"}',
        '{"do": "restart", "replica": "../etc"}',
        '{"do": "restart", "replica": "qwen-9"}',
        '{"do": "restart", "replica": ["qwen-0"]}',
        '{"do": ["restart"], "replica": "qwen-0"}',
        '{"do": "stop", "replica": "qwen-0"}',
        '{"do": "__init__", "replica": "qwen-0"}',
        '{"do": "run", "replica": "qwen-0"}',
        '{"do": "restart", "replica": "qwen-0", "unit": "ssh.service"}',
        '{"do": "restart", "replica": "qwen-0; reboot"}',
        '{"do": "reset", "replica": "qwen-0"}',
        '{"do": "reboot", "replica": "qwen-0"}',
        "[" * 5000, b"\xff\xfe\n", b"x" * 100_000,
    ],
)  # fmt: skip
def test_the_helper_refuses_all_but_its_commands(tmp_path: Path, line: str | bytes):
    helper = Helper(tmp_path)
    for name in ("systemctl", "nft", "nvidia-smi"):
        helper.program(name, "exit 0")
    answer = helper.ask(line)
    assert (answer["ok"], helper.ran) == (False, [])


def test_the_helper_hands_the_first_key_of_a_replica_on(tmp_path: Path):
    helper = Helper(tmp_path)
    assert helper.do("key") == {"key": "secret-key", "ok": True}
    assert helper.do("key", "qwen-1") == {"key": "", "ok": True}
    text = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(text.replace("/qwen-0/1", "/qwen-0/../../../etc"))
    assert "not the folder" in helper.do("key")["error"]


def test_the_helper_restarts_what_hangs_without_waiting_for_it(tmp_path: Path):
    helper = Helper(tmp_path)
    helper.program("systemctl", "exit 0")
    assert helper.do("restart") == {"done": "restarted", "ok": True}
    assert helper.ran == [
        "systemctl kill --signal=SIGKILL llm-engine@qwen-0.service",
        "systemctl reset-failed llm-engine@qwen-0.service",
        "systemctl restart --no-block llm-engine@qwen-0.service",
    ]


def test_the_helper_leaves_a_host_to_the_deploy_that_holds_it(tmp_path: Path):
    helper = Helper(tmp_path, may_reboot=True, may_reset=True)
    helper.program("systemctl", "exit 0")
    with subprocess.Popen(
        ["flock", tmp_path / "lock", "sh", "-c", "echo; read line"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        assert holder.stdout and holder.stdout.readline()
        for do in ("restart", "reset", "reboot"):
            assert "a deploy is at work" in helper.do(do)["error"]
        assert holder.stdin
        holder.stdin.close()
    assert helper.ran == []


def test_a_program_that_fails_is_told(tmp_path: Path):
    helper = Helper(tmp_path)
    helper.program("systemctl", "echo 'Unit is \033[1mmasked' >&2; exit 5")
    answer = helper.do("restart")
    assert (answer["ok"], "masked" in answer["error"], "\033" in answer["error"]) == (
        False,
        True,
        False,
    )


def test_a_quarantine_is_written_with_its_reason_and_gpus(tmp_path: Path):
    helper = Helper(tmp_path)
    helper.program("systemctl", "exit 0")
    helper.program("nvidia-smi", "exit 1")
    answer = helper.do("quarantine", reason="no step\nfor 40 s")
    about = json.loads((tmp_path / "quarantine/qwen-0.json").read_text())
    assert answer == {"done": f"{tmp_path}/quarantine/qwen-0.json", "ok": True}
    assert (about["reason"], about["gpus"]) == ("no step for 40 s", [0])
    # The driver need not list it any more.
    assert about["gpu_names"] == ["0 NVIDIA H200"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}Z", about["date"])
    assert "systemctl stop --no-block llm-engine@qwen-0.service" in helper.ran


def test_gpus_are_reset_only_if_no_process_uses_them(tmp_path: Path):
    helper = Helper(tmp_path, may_reset=True)
    helper.program("systemctl", "exit 0")
    helper.program("nvidia-smi", f"[ ! -e {tmp_path}/used ] || [ $3 = --gpu-reset ] || echo 412")
    assert helper.do("reset")["ok"]
    assert "nvidia-smi --gpu-reset -i 0" in helper.ran
    assert helper.ran[-1] == "systemctl start --no-block llm-engine@qwen-0.service"
    (tmp_path / "ran").unlink()
    (tmp_path / "used").touch()
    assert "GPU 0 is used by process 412" in helper.do("reset")["error"]
    assert not [line for line in helper.ran if "gpu-reset" in line]
    assert helper.ran[-1] == "systemctl start --no-block llm-engine@qwen-0.service"


def test_a_host_is_rebooted_once_a_day(tmp_path: Path):
    helper = Helper(tmp_path, may_reboot=True)
    helper.program("systemctl", "exit 0")
    assert helper.do("reboot")["ok"]
    assert "within a day" in helper.do("reboot")["error"]
    assert helper.ran == ["systemctl reboot --no-block"]
    # A clock that went back does not end the day.
    later = time.time() + 10 * 86400
    os.utime(tmp_path / "rebooted", (later, later))
    assert "within a day" in helper.do("reboot")["error"]


@pytest.mark.parametrize(
    ("smi", "kernel", "step"),
    [
        ("echo 1, NVIDIA H200, 00000000:5E:00.0", "", "reboot"),
        ("echo No devices were found; exit 6", "", "reboot"),
        ("[ ${1#*pending} = $1 ] && echo 0, NVIDIA H200, 00000000:3B:00.0",
            "NVRM: Xid (PCI:0000:3b:00): 64, pid=1, x", "quarantine"),
        ("echo 0, NVIDIA H200, 00000000:3B:00.0, No, No, 0, None, Not Active", "", "none"),
        ("sleep 60", "", "restart"),
    ],
)  # fmt: skip
def test_what_gpus_ask_for_comes_with_the_evidence(
    tmp_path: Path, smi: str, kernel: str, step: str
):
    helper = Helper(tmp_path)
    helper.program("nvidia-smi", smi)
    helper.program("journalctl", f"echo '{kernel}'")
    helper.program("systemctl", "echo active")
    answer = helper.do("evidence")
    assert (answer["ok"], answer["step"]) == (True, step)
    assert Path(answer["done"]).read_text().startswith(f"# what its GPUs ask for: {step}")


def test_evidence_is_bounded_private_and_without_keys(tmp_path: Path):
    helper = Helper(tmp_path)
    helper.program("journalctl", "head -c 9000000 /dev/zero | tr '\\0' x; echo; echo secret-key")
    helper.program("nvidia-smi", "sleep 60")
    helper.program("systemctl", "echo active")
    (tmp_path / "evidence").mkdir()
    for number in range(30):
        (tmp_path / f"evidence/20200101T0000{number:02}Z-qwen-0.txt").touch()
    path = Path(helper.do("evidence")["done"])
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size <= 1 << 20
    assert len(list((tmp_path / "evidence").iterdir())) == 20
    assert "secret-key" not in text and "***" in text
    assert "no answer in time" in text
