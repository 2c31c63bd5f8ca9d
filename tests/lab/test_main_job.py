"""The main job over real hosts: first run, second run, and what its users and attackers see."""

import json
import xml.etree.ElementTree as ElementTree

from tests.lab import hosts, keys
from tests.lab.conftest import ROOT, Fleet, Run

REPLICAS = {
    "gpu1": ["llm-engine@qwen2.5-14b-0.service", "llm-engine@qwen2.5-14b-1.service"],
    "gpu2": ["llm-engine@qwen2.5-14b-0.service"],
    "gpu3": ["llm-engine@qwen2.5-14b-0.service", "llm-engine@qwen2.5-14b-1.service"],
}
UPSTREAM = {
    "10.99.0.11:8001": True,
    "10.99.0.11:8002": True,
    "10.99.0.12:8001": True,
    "10.99.0.13:8001": True,
    "10.99.0.13:8002": True,
}

# Files that anybody can read and that hold what comes on the standard input.
SEARCH = (
    "k=$(mktemp) && cat > $k && find /etc /opt/llm/engines /var /tmp /run -xdev -type f -perm -o=r "
    "-size -1M 2>/dev/null | xargs -r grep -lsF -f $k; rm $k; echo searched"
)


def test_first_run_ends_in_a_validated_endpoint(lab: Fleet, first_run: Run):
    assert first_run.status == 0, first_run.text
    assert "Plan for qwen2.5-14b" in first_run.log
    assert {host: sorted(lab.engines(host)) for host in REPLICAS} == REPLICAS
    assert lab.upstream() == UPSTREAM
    status, answer = lab.ask()
    assert (status, answer["model"]) == (200, "Qwen/Qwen2.5-14B-Instruct")
    assert answer["usage"]["completion_tokens"] > 0


def test_reports_for_ci(fleet: Fleet, first_run: Run):
    checks = json.loads((ROOT / "reports/report.json").read_text())["checks"]
    assert {check["host"] for check in checks} == {"gpu1", "gpu2", "gpu3", "lb1"}
    # Preflight and interconnect skip what does not matter on a host; validation skips nothing.
    assert {check["outcome"] for check in checks} <= {"pass", "warn", "skipped"}
    proofs = {check["outcome"] for check in checks if check["name"] in ("completion", "load")}
    assert proofs == {"pass"}
    assert all(check["evidence"] for check in checks)
    suites = ElementTree.parse(ROOT / "reports/report.xml").getroot()
    assert len(list(suites.iter("testcase"))) == len(checks)
    assert "0 failed" in first_run.text


def test_replicas_have_the_planned_shape(fleet: Fleet):
    arguments = fleet.ssh("gpu3", "sudo cat /etc/llm/replicas/qwen2.5-14b-1/current/options.yaml")
    assert "tensor-parallel-size: 2" in arguments
    assert "port: 8002" in arguments
    environment = fleet.ssh("gpu3", "sudo cat /etc/llm/replicas/qwen2.5-14b-1/current/environment")
    assert 'CUDA_VISIBLE_DEVICES="2,3"' in environment
    owners = fleet.ssh("gpu3", "nvidia-smi --query-compute-apps=gpu_uuid,pid --format=csv,noheader")
    assert len(set(owners.split())) == 8  # four GPUs, each with a process of its own


def test_second_run_changes_nothing(fleet: Fleet):
    before = {host: fleet.engines(host) for host in REPLICAS}
    run = fleet.deploy()
    assert run.status == 0, run.text
    assert run.changes == 0, run.text
    assert {host: fleet.engines(host) for host in REPLICAS} == before


def test_a_run_without_changes_is_cheap(fleet: Fleet):
    run = fleet.deploy("--data", "validate=false", "-vv")
    assert run.changes == 0, run.text
    commands = {host: run.ssh_commands(host) for host in [*REPLICAS, "lb1"]}
    assert all(0 < count <= 25 for count in commands.values()), commands


def test_a_wrong_key_is_refused_everywhere(fleet: Fleet):
    assert fleet.ask(key="wrong-key-0123456789abcdef")[0] == 401
    assert fleet.ask(key="")[0] == 401
    # An engine itself wants a key of its own, even from the balancer.
    code = fleet.ssh(
        "lb1",
        "curl -s -m 120 -o /dev/null -w '%{http_code}' http://10.99.0.11:8001/v1/models "
        "-H 'Authorization: Bearer wrong-key-0123456789abcdef'",
    )
    assert code == "401"


# An engine that is only slow has let the connection in.
DROPPED = (28, "0.000000")


def connecting(source: str, address: str) -> tuple[int, str]:
    """How curl ended on a host, and after how many seconds it was connected."""
    done = hosts.ssh(source, f"curl -s -m 3 -o /dev/null -w '%{{time_connect}}' http://{address}/")
    return done.returncode, done.stdout


def test_only_the_balancer_reaches_an_engine(fleet: Fleet):
    from_lb = fleet.ssh(
        "lb1", "curl -s -m 120 -o /dev/null -w '%{http_code}' http://10.99.0.12:8001/health"
    )
    assert from_lb == "200"
    for source in ("gpu1", "gpu3"):
        assert connecting(source, "10.99.0.12:8001") == DROPPED, f"{source} reached an engine"
    assert fleet.ask(url="http://10.99.0.12:8001", timeout_s=5)[0] == 0


def test_what_engines_listen_on_is_closed_to_others(fleet: Fleet):
    listening = fleet.ssh("gpu3", "sudo ss -ltnpH | grep -i vllm")
    open_ports = {
        int(line.split()[3].rpartition(":")[2])
        for line in listening.splitlines()
        if not line.split()[3].startswith(("127.", "[::1]"))
    }
    assert {8001, 8002} <= open_ports
    # Planned ports, and those among themselves: both are in the firewall's rules.
    assert all(port in (8001, 8002) or 29000 <= port <= 29199 for port in open_ports), listening
    for port in open_ports:
        assert connecting("gpu1", f"10.99.0.13:{port}") == DROPPED, f"gpu1 reached {port} of gpu3"


def test_keys_are_nowhere_to_be_seen(fleet: Fleet, first_run: Run):
    for key in (keys.API_KEYS[0].read_text().strip(), keys.API_KEYS[1].read_text().strip()):
        assert key not in first_run.text
        for host in ("gpu1", "lb1"):
            assert key not in fleet.ssh(host, "ps axww -o args")
            assert key not in fleet.ssh(host, "sudo journalctl --no-pager -o cat")
            # On the standard input, or the search itself would show the key.
            found = hosts.run_inside(
                [*hosts.ssh_command(host), SEARCH], input=key, capture_output=True, text=True
            )
            assert found.stdout.strip() == "searched"


def test_engines_run_as_nobody_of_importance(fleet: Fleet):
    unit = "llm-engine@qwen2.5-14b-0.service"
    shown = fleet.ssh("gpu1", f"systemctl show -p User -p NoNewPrivileges -p ProtectSystem {unit}")
    assert "User=llm-engine" in shown
    assert "NoNewPrivileges=yes" in shown
    assert "ProtectSystem=strict" in shown
    exposure = fleet.ssh("gpu1", f"systemd-analyze security --no-pager {unit} | tail -1")
    assert float(exposure.split(":")[1].split()[0]) < 4.5, exposure


def test_plan_is_shown_checked_against_the_hosts(fleet: Fleet):
    run = fleet.pyinfra("inventories/lab.py", "deploys/plan.py", "-y")
    assert run.status == 0
    assert "TP2 is the smallest shape that fits NVIDIA A10G" in run.text
    assert "GPUs as in the inventory: 4x NVIDIA A10G" in run.text
