"""The pages on day two do what they say: their commands, as they are written, over real hosts.

In the order of a fleet's life; each test leaves it serving for the next one.
"""

from collections.abc import Iterator

import pytest

from tests.lab import hosts, llama
from tests.lab.conftest import Fleet, wait_until
from tests.lab.day_two import BALANCERS, GPU_HOSTS, LAB_NAMES, Operator, sections

OUT = "3. Go on, or go back"
FOLLOWED = {
    ("upgrading", "Upgrading"),
    ("upgrading", "Another version of an engine"),
    ("rotating-keys", "The key of clients"),
    ("rotating-keys", "The key of engines"),
    ("rotating-keys", "Others"),
    ("removing", "Removing a service or a host"),
    ("removing", "A service"),
    ("removing", "A GPU host"),
    ("removing", "A balancer"),
    ("stopping-and-starting", "Requests to a host, by the inventory"),
    ("stopping-and-starting", "One replica"),
    ("stopping-and-starting", "All replicas of a host"),
    ("stopping-and-starting", "A host, to work on its hardware"),
    ("stopping-and-starting", "Everything"),
    ("reading-logs", "What a run did"),
    ("reading-logs", "What an engine says"),
    ("reading-logs", "What runs"),
    ("reading-logs", "Requests"),
    ("reading-logs", "GPUs"),
    ("failed-rolling-update", "1. Read the verdict"),
    ("failed-rolling-update", "2. See what is mixed"),
    ("failed-rolling-update", OUT),
}
ELSEWHERE = {
    # The tests of drivers upgrade them.
    ("upgrading", "The GPU driver"),
    # It fetches this project and its packages from the internet.
    ("upgrading", "This project"),
    # The tests of drains do, with replicas that they may take out.
    ("stopping-and-starting", "Requests to a host, a replica or a GPU, now"),
}
BOTH = {"qwen2.5-14b-0", "code-0"}


@pytest.fixture(scope="module")
def fleet(lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator's fleet after its first deploy, in a repository of his own."""
    with hosts.booted(*LAB_NAMES.values()):
        operator = Operator(tmp_path_factory.mktemp("operator"))
        first = operator.shell(
            "git init -q . && git add inventories/prod.py\n"
            "git -c user.name=a -c user.email=a@example.com commit -qm 'The fleet'\n"
            "(umask 077; openssl rand -hex 32 > secrets/prod-api.key)\n"
            "python -m roles.fleet trust inventories/prod.py\n"
            "pyinfra inventories/prod.py deploys/llm.py -y\n"
        )
        assert first.status == 0, first.text
        yield operator


def statuses(fleet: Operator) -> set[int]:
    """What both services answer at every balancer."""
    return {fleet.status(name, prefix) for name in fleet.balancers for prefix in ("", "/code")}


def test_every_command_of_the_pages_is_followed():
    assert set(sections()) == FOLLOWED | ELSEWHERE


def test_another_version_of_the_engine_and_back(fleet: Operator):
    newer = llama.BUILD + 1
    fleet.engine = {"version": f"b{newer}", "archive": llama.offered_as(newer)}
    fleet.write()
    dry = fleet.follow("upgrading", "Upgrading")
    before = {name: fleet.running(name) for name in GPU_HOSTS}
    assert all(f"{name}/{replica}" in dry for name in GPU_HOSTS for replica in BOTH), dry
    fleet.follow("upgrading", "Another version of an engine", "deploys/llm.py")
    for name in GPU_HOSTS:
        now = fleet.running(name)
        assert set(now) == BOTH and not set(now.values()) & set(before[name].values())
    assert statuses(fleet) == {200}
    fleet.engine = {}
    fleet.write()
    fleet.follow("upgrading", "Another version of an engine", "deploys/llm.py")


def test_the_key_of_clients_changes_without_a_restart(fleet: Operator):
    old, before = fleet.key(), {name: fleet.running(name) for name in GPU_HOSTS}
    fleet.follow("rotating-keys", "The key of clients")
    assert fleet.key() != old and statuses(fleet) == {200}
    assert {fleet.status(name, key=old) for name in BALANCERS} == {401}
    assert {name: fleet.running(name) for name in GPU_HOSTS} == before


def test_the_key_of_engines_changes_where_the_deploy_made_it_and_where_it_is_named(fleet: Operator):
    made, before = fleet.key("prod/engines.key"), fleet.running("gpu-1")
    fleet.follow("rotating-keys", "The key of engines", "rm ")
    assert fleet.key("prod/engines.key") != made
    now = fleet.running("gpu-1")
    assert set(now) == BOTH and not set(now.values()) & set(before.values())
    assert statuses(fleet) == {200}
    fleet.balancer = {"engine_key_file": "secrets/prod-engines.key"}
    fleet.write()
    fleet.follow("rotating-keys", "The key of engines", "openssl")
    assert statuses(fleet) == {200} and not set(fleet.running("gpu-1").values()) & set(now.values())


def test_a_hosts_ssh_key_is_recorded_anew(fleet: Operator):
    recorded = fleet.folder / "inventories/known_hosts/prod"
    before = set(recorded.read_text().splitlines())
    fleet.follow("rotating-keys", "Others")
    assert set(recorded.read_text().splitlines()) == before


def test_a_host_without_requests(fleet: Operator):
    fleet.hosts["gpu-1"] = {"drained": True}
    fleet.write()
    fleet.follow("stopping-and-starting", "Requests to a host, by the inventory")
    assert set(fleet.running("gpu-1")) == BOTH
    listed = fleet.ssh(LAB_NAMES["lb-1"], "cat /etc/nginx/llm/upstreams.conf").splitlines()
    of_host = [line for line in listed if hosts.host(LAB_NAMES["gpu-1"]).address in line]
    assert of_host and all(" down" in line for line in of_host), listed
    fleet.hosts["gpu-1"] = {}
    fleet.write()
    before = fleet.running("gpu-1")
    fleet.follow("stopping-and-starting", "One replica")
    now = fleet.running("gpu-1")
    assert set(now) == BOTH and now["code-0"] == before["code-0"]
    assert now["qwen2.5-14b-0"] != before["qwen2.5-14b-0"]
    assert statuses(fleet) == {200}


def test_a_host_to_work_on_its_hardware(fleet: Operator):
    fleet.hosts["gpu-1"] = {"retired": True}
    fleet.write()
    fleet.follow("stopping-and-starting", "All replicas of a host")
    assert fleet.running("gpu-1") == {} and statuses(fleet) == {200}
    fleet.follow("stopping-and-starting", "A host, to work on its hardware")
    wait_until(lambda: not hosts.running()[LAB_NAMES["gpu-1"]], "the end of gpu-1")
    hosts.power_on(LAB_NAMES["gpu-1"])
    fleet.hosts["gpu-1"] = {}
    fleet.write()
    fleet.follow("stopping-and-starting", "All replicas of a host")
    assert set(fleet.running("gpu-1")) == BOTH


def test_everything_stops_and_starts(fleet: Operator):
    fleet.follow("stopping-and-starting", "Everything", "exec")
    assert {name: fleet.running(name) for name in GPU_HOSTS} == {name: {} for name in GPU_HOSTS}
    assert statuses(fleet) == {0}
    fleet.follow("stopping-and-starting", "Everything", "deploys/llm.py")
    assert {name: set(fleet.running(name)) for name in GPU_HOSTS} == dict.fromkeys(GPU_HOSTS, BOTH)
    assert statuses(fleet) == {200}


def test_a_rolling_update_that_failed_and_both_ways_out(fleet: Operator):
    fleet.shell("git add -A inventories && git -c user.name=a -c user.email=a@b.c commit -qm 'Now'")
    before = fleet.running("gpu-2")
    fleet.services["qwen2.5-14b"] = {"arguments": {"threads-http": "many"}}
    fleet.write()
    failed = fleet.follow("upgrading", "Another version of an engine", "deploys/llm.py", status=1)
    assert "The old settings are back, and serve" in failed, failed
    assert 'argument "--threads-http"' in fleet.follow(
        "failed-rolling-update", "1. Read the verdict"
    )
    mixed = fleet.follow("failed-rolling-update", "2. See what is mixed")
    assert "gpu-2/qwen2.5-14b-0" in mixed, mixed
    assert fleet.running("gpu-2")["qwen2.5-14b-0"] == before["qwen2.5-14b-0"]
    assert statuses(fleet) == {200}

    fleet.services["qwen2.5-14b"] = {"arguments": {"threads-http": 3}}
    fleet.write()
    go_on, go_back = (block.text for block in sections()["failed-rolling-update", OUT])
    assert fleet.shell(go_on).status == 0 and statuses(fleet) == {200}
    moved = fleet.running("gpu-2")
    back = fleet.shell(go_back)
    assert back.status == 0 and "threads-http" in back.text, back.text
    now = fleet.running("gpu-2")
    assert set(now) == BOTH and now["code-0"] == moved["code-0"] == before["code-0"]
    assert now["qwen2.5-14b-0"] not in (before["qwen2.5-14b-0"], moved["qwen2.5-14b-0"])
    fleet.services["qwen2.5-14b"] = {}


def test_logs_are_where_the_page_says(fleet: Operator):
    assert " checks: " in fleet.follow("reading-logs", "What a run did")
    printed = fleet.follow("reading-logs", "What an engine says")
    assert "listening on http:" in printed, printed
    runs = fleet.follow("reading-logs", "What runs")
    assert all(replica in runs for replica in BOTH), runs
    assert '"request_id"' in fleet.follow("reading-logs", "Requests")
    assert "NVIDIA L40S" in fleet.follow("reading-logs", "GPUs")


def test_a_service_goes(fleet: Operator):
    del fleet.services["code"]
    fleet.write()
    assert "code-0" in fleet.follow("removing", "Removing a service or a host")
    fleet.follow("removing", "A service")
    # What is left has the host's other GPU, too.
    left = {replica for name in GPU_HOSTS for replica in fleet.running(name)}
    assert left == {"qwen2.5-14b-0", "qwen2.5-14b-1"}
    assert (fleet.status(), fleet.status(prefix="/code")) == (200, 404)


def test_a_gpu_host_goes(fleet: Operator):
    fleet.hosts["gpu-1"] = {"retired": True}
    fleet.write()
    fleet.follow("removing", "A GPU host")
    assert fleet.running("gpu-1") == {}
    left = fleet.ssh(LAB_NAMES["gpu-1"], "ls -d /opt/llm /etc/llm /var/lib/llm 2>&- || true")
    assert left == ""
    del fleet.hosts["gpu-1"]
    fleet.write()
    fleet.follow("removing", "A service")
    assert {fleet.status(name) for name in BALANCERS} == {200}


def test_a_balancer_goes(fleet: Operator):
    fleet.follow("removing", "A balancer", "nginx")
    fleet.balancers.remove("lb-1")
    fleet.write()
    fleet.follow("removing", "A balancer", "deploys/llm.py")
    assert (fleet.status("lb-1"), fleet.status("lb-2")) == (0, 200)
    engine = (
        f"curl -s -m 3 -o /dev/null http://{hosts.host(LAB_NAMES['gpu-2']).address}:8001/health"
    )
    assert hosts.ssh(LAB_NAMES["lb-1"], engine).returncode == 28
    assert hosts.ssh(LAB_NAMES["lb-2"], engine).returncode == 0
