"""Services on a stand-in of Ollama over real hosts: one of a file, one of a registry's model."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.lab import hosts, ollama
from tests.lab.conftest import Fleet, wait_until
from tests.lab.services import BALANCER, FAST, GPUS, PINNED, Services
from tests.lab.watchdogs import replicas

HOSTS: dict[str, dict[str, Any]] = {
    name: {"gpus": gpus, "pinned_gpus": PINNED[name]} for name, gpus in GPUS.items()
}
UNIT = "llm-engine@alpha-0.service"
APPS = "nvidia-smi --query-compute-apps=pid --format=csv,noheader"
# Pids of a replica's server and of the engine that it started.
FAMILY = f"p=$(systemctl show -P MainPID {UNIT}); echo $p $(pgrep -P $p -x llama-server)"


class OnOllama(Services):
    """Alpha is of a file on the hosts, beta of a model on the lab's registry."""

    def alpha(self, **settings: Any) -> dict[str, Any]:
        return self.service("alpha", {}, engine="ollama", **settings)

    def beta(self) -> dict[str, Any]:
        own = {"engine": "ollama", "first_port": 8101, "weights": ollama.MODEL}
        return self.service("beta", {"path_prefix": "/beta"}, **own)

    def both(self, **alpha: Any) -> Path:
        build: Mapping[str, Any] = {
            "device": "cpu",
            "archive": ollama.URL,
            "sha256": ollama.archive_sha256(),
            "allow_http_from": [ollama.REGISTRY],
            # They are not in the lab's own repository.
            "packages": [],
        }
        services = [self.alpha(**alpha), self.beta()]
        return self.inventory(services, HOSTS, engines={"ollama": build})


@pytest.fixture(scope="module")
def both(lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnOllama]:
    """Both services on fresh hosts, after a good first run that proved them."""
    ollama.serve()
    with hosts.booted(BALANCER, *GPUS):
        made = OnOllama(tmp_path_factory.mktemp("ollama"))
        made.apply(made.both())
        yield made


def test_both_are_proved_and_serve_through_the_balancer(both: OnOllama):
    checks = json.loads((both.reports / "report.json").read_text())["checks"]
    assert {one["outcome"] for one in checks} <= {"pass", "warn", "skipped"}, checks
    found = {(one["host"], one["subject"], one["name"]): one["outcome"] for one in checks}
    for replica in ("alpha-0", "beta-0"):
        # Its model's name, and the GPUs that it holds by the process that it started.
        assert found["gpu5", replica, "model"] == found["gpu5", replica, "process"] == "pass"
    assert both.completion(both.alpha()) == both.completion(both.beta()) == 200
    assert {name: set(members.values()) for name, members in both.upstreams().items()} == {
        "alpha": {True},
        "beta": {True},
    }


def test_the_engine_that_it_started_holds_the_planned_gpu(both: OnOllama):
    server, engine = both.ssh("gpu5", FAMILY).split()
    held = both.ssh("gpu5", APPS).split()
    assert engine in held and server not in held


def test_only_the_balancer_asks_for_the_key(both: OnOllama):
    wrong, engines = both.key("wrong"), "http://10.99.0.21:8001"
    assert both.status(None, "https://10.99.0.20", "lab/alpha", wrong) == 401
    assert both.status(BALANCER, engines, "lab/alpha", wrong) == 200
    # The lab's control side is no balancer: its packets are dropped.
    asked = hosts.run_inside(["curl", "-s", "-m", "5", engines], capture_output=True)
    assert asked.returncode == 28
    # A client reaches nothing that pulls or deletes models.
    pull = "curl -sk -o /dev/null -w '%{http_code}' https://10.99.0.20/api/pull -d '{}'"
    assert both.ssh("gpu5", pull) == "404"


def test_a_name_that_it_does_not_have_is_refused(both: OnOllama):
    assert both.status(BALANCER, "http://10.99.0.21:8001", "lab/beta", both.key("x")) == 404


def test_a_second_run_changes_nothing(both: OnOllama):
    before = both.pids("alpha") | both.pids("beta")
    run = both.apply(both.both(), *FAST)
    assert run.changes == 0, run.text
    assert both.pids("alpha") | both.pids("beta") == before


def test_a_rolling_update_loses_no_request(both: OnOllama):
    alpha, beta = both.pids("alpha"), both.pids("beta")
    with both.asking(lambda: both.completion(both.alpha())) as statuses:
        run = both.apply(both.both(kv_cache_dtype="q8_0"), *FAST)
    assert set(statuses) == {200}, run.text
    now = both.pids("alpha")
    assert now.keys() == alpha.keys() and not set(now.items()) & set(alpha.items())
    assert both.pids("beta") == beta
    _, engine = both.ssh("gpu5", FAMILY).split()
    words = both.ssh("gpu5", f"ps -p {engine} -ww -o args=").split()
    assert words[words.index("--cache-type-k") + 1] == "q8_0"


def test_a_server_that_is_killed_comes_back_with_its_model(both: OnOllama):
    before, _ = both.ssh("gpu5", FAMILY).split()
    both.ssh("gpu5", f"sudo kill -9 {before}")
    both.apply(both.both(kv_cache_dtype="q8_0"), *FAST)
    after, engine = both.ssh("gpu5", FAMILY).split()
    assert after != before and engine
    assert both.status(BALANCER, "http://10.99.0.21:8001", "lab/alpha", both.key("x")) == 200


def serves_for(name: str) -> float:
    """For how many seconds a replica of gpu5 serves, by its watchdog."""
    found = {one["name"]: one for one in replicas("gpu5") if one["state"] == "serving"}
    return found[name]["since_s"] if name in found else 0


def test_an_engine_that_stops_is_restarted_by_the_watchdog(both: OnOllama):
    server, engine = both.ssh("gpu5", FAMILY).split()
    # One that hangs before its counter has moved could have a full queue, and is restarted later.
    wait_until(lambda: serves_for("alpha-0") > 6, "a replica that serves", 90)
    both.ssh("gpu5", f"sudo kill -STOP {engine}")
    # The last replica of its service: it stays in, and is restarted.
    url, key = "http://10.99.0.21:8001", both.key("x")
    other = f"test $(systemctl show -P MainPID {UNIT}) != {server}"
    wait_until(lambda: hosts.ssh("gpu5", other).returncode == 0, "another process", 120)
    wait_until(lambda: both.status(BALANCER, url, "lab/alpha", key) == 200, "an answer", 120)


def test_its_unit_is_exposed_to_little(both: OnOllama):
    text = both.ssh("gpu5", f"systemd-analyze security --no-pager {UNIT} | tail -1")
    assert float(text.split(":")[1].split()[0]) <= 2.5, text
