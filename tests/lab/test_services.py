"""Two services over real hosts: each has its own endpoint, keys, rolling update and end."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.lab import hosts
from tests.lab.conftest import Fleet, wait_until
from tests.lab.services import BALANCER, FAST, GPUS, PINNED, Services

HOSTS: dict[str, dict[str, Any]] = {
    name: {"gpus": gpus, "pinned_gpus": PINNED[name]} for name, gpus in GPUS.items()
}
MEMBERS = {
    service: {f"gpu5/{service}-0": True, f"gpu6/{service}-0": True, f"gpu6/{service}-1": True}
    for service in ("alpha", "beta")
}
# Another option of llama-server, which changes nothing that can be seen.
CHANGED = {"threads-http": 3}
# What the services are once they were changed.
LATER: dict[str, Any] = {
    "alpha": {"arguments": CHANGED, "client_key": 2, "engine_key": 2},
    "beta": {"arguments": CHANGED},
}


class Two(Services):
    """The two services: alpha by a path prefix, beta by a port."""

    def alpha(self, **settings: Any) -> dict[str, Any]:
        return self.service("alpha", {"path_prefix": "/alpha"}, **settings)

    def beta(self, **settings: Any) -> dict[str, Any]:
        return self.service("beta", {"port": 8443}, first_port=8101, **settings)

    def both(
        self,
        alpha: Mapping[str, Any] | None = None,
        beta: Mapping[str, Any] | None = None,
        program: str = "nginx",
        **hosts: Mapping[str, Any],
    ) -> Path:
        """The inventory of both, with changed settings of some, behind a balancer's program."""
        changed = {name: HOSTS[name] | dict(hosts.get(name, {})) for name in HOSTS}
        return self.inventory(
            [self.alpha(**dict(alpha or {})), self.beta(**dict(beta or {}))],
            changed,
            balancer={"program": program},
        )

    def alone(self, *names: str) -> Path:
        """The inventory of alpha as it is later, on these hosts, where it keeps its GPUs."""
        pinned = {
            name: {"gpus": GPUS[name], "pinned_gpus": {"alpha": PINNED[name]["alpha"]}}
            for name in names
        }
        return self.inventory([self.alpha(**LATER["alpha"])], pinned)


@pytest.fixture(scope="module")
def two(lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Both services on fresh hosts, after a good first run that proved them."""
    with hosts.booted(BALANCER, *GPUS):
        made = Two(tmp_path_factory.mktemp("services"))
        made.apply(made.both())
        yield made


def proved(two: Two) -> dict[str, set[str]]:
    """What the last run's report says of each host's completions: subject to outcomes."""
    checks = json.loads((two.reports / "report.json").read_text())["checks"]
    found: dict[str, set[str]] = {}
    for check in checks:
        if check["name"] == "completion":
            found.setdefault(f"{check['host']} {check['subject']}", set()).add(check["outcome"])
    return found


def test_each_service_is_proved_behind_its_own_endpoint(two: Two):
    assert two.upstreams() == MEMBERS
    assert two.completion(two.alpha()) == two.completion(two.beta()) == 200
    outcomes = proved(two)
    assert set().union(*outcomes.values()) == {"pass"}
    ends = {name for name in outcomes if name.startswith(BALANCER)}
    assert ends == {
        f"{BALANCER} https://10.99.0.20:443/alpha",
        f"{BALANCER} https://10.99.0.20:8443",
    }
    assert len(outcomes) == len(ends) + sum(map(len, MEMBERS.values())), outcomes


@pytest.mark.parametrize(
    ("service", "client", "engine"),
    [("alpha", 200, 200), ("beta", 401, 401)],
)
def test_each_service_takes_its_own_keys_alone(two: Two, service: str, client: int, engine: int):
    own, model = two.key(f"{service}-client"), "lab/alpha"
    assert two.status(None, "https://10.99.0.20/alpha", model, own) == client
    own = two.key(f"{service}-engine")
    assert two.status(BALANCER, "http://10.99.0.21:8001", model, own) == engine
    # A client's key is none of the engines'.
    assert two.status(BALANCER, "http://10.99.0.21:8001", model, two.key("alpha-client")) == 401


def test_a_run_without_changes_asks_each_host_little(two: Two):
    before = two.pids("alpha") | two.pids("beta")
    run = two.apply(two.both(), *FAST, "-vv")
    assert run.changes == 0, run.text
    assert two.pids("alpha") | two.pids("beta") == before
    commands = {name: run.ssh_commands(name) for name in (*GPUS, BALANCER)}
    assert commands["gpu5"] == commands["gpu6"] <= 3, commands
    assert commands[BALANCER] <= 4, commands


def test_a_change_to_one_service_restarts_none_of_the_other(two: Two):
    alpha, beta = two.pids("alpha"), two.pids("beta")
    run = two.apply(two.both(alpha={"arguments": CHANGED}), *FAST)
    assert two.pids("beta") == beta
    now = two.pids("alpha")
    assert now.keys() == alpha.keys() and not set(now.items()) & set(alpha.items()), run.text
    assert two.upstreams() == MEMBERS


def test_a_service_that_fails_leaves_the_others_update_to_go_on(two: Two):
    alpha, beta = two.pids("alpha", "gpu6"), two.pids("beta", "gpu6")
    bad = two.both(alpha={"arguments": {"threads-http": "many"}}, beta={"arguments": CHANGED})
    run = two.deploy(*FAST, inventory=bad)
    assert run.status == 1
    assert "The old settings are back, and serve: alpha-0, beta-0." in run.text, run.text
    assert "last log lines of llm-engine@alpha-0.service" in run.text
    assert two.pids("alpha", "gpu6") == alpha, run.text
    moved = two.pids("beta", "gpu6")
    assert moved.keys() == beta.keys() and not set(moved.items()) & set(beta.items()), run.text
    arguments = two.ssh("gpu5", "ps -C llama-server -ww -o args=") + two.ssh(
        "gpu6", "ps -C llama-server -ww -o args="
    )
    assert len(arguments.splitlines()) == 6 and "--threads-http many" not in arguments
    assert two.upstreams() == MEMBERS
    assert two.completion(two.alpha()) == two.completion(two.beta()) == 200

    # What is left is done by the next run.
    alpha, beta = two.pids("alpha"), two.pids("beta")
    two.apply(two.both(alpha={"arguments": CHANGED}, beta={"arguments": CHANGED}), *FAST)
    assert two.pids("alpha") == alpha
    now = two.pids("beta")
    assert {name for name in beta if now[name] != beta[name]} == {"gpu5/beta-0"}


def test_a_change_of_keys_loses_no_request(two: Two):
    old, new = two.alpha(), two.alpha(**LATER["alpha"])
    before = two.pids("alpha")
    with (
        two.asking(lambda: two.completion(old)) as by_old,
        two.asking(lambda: two.completion(new)) as by_new,
    ):
        run = two.apply(two.both(**LATER), *FAST)
        # A request that was asked before the last reload may answer after the run.
        wait_until(lambda: (by_old[-1], by_new[-1]) == (401, 200), "the new key alone", 60)
    # The balancer takes one key until the end, and then the other; no engine refuses one of them.
    assert set(by_old) == set(by_new) == {200, 401}, run.text
    assert (by_old[0], by_old[-1]) == (by_new[-1], by_new[0]) == (200, 401), run.text
    after = two.pids("alpha")
    assert after.keys() == before.keys() and not set(after.items()) & set(before.items())
    key = two.key("alpha-engine", 2)
    assert two.status(BALANCER, "http://10.99.0.21:8001", "lab/alpha", key) == 200
    assert two.apply(two.both(**LATER), *FAST).changes == 0


def test_a_host_is_drained_and_taken_back_without_a_restart(two: Two):
    before = two.pids("alpha") | two.pids("beta")
    with two.asking(lambda: two.completion(two.beta())) as statuses:
        two.apply(two.both(**LATER, gpu5={"drained": True}), *FAST)
        drained = two.upstreams()
        two.apply(two.both(**LATER), *FAST)
    for name, members in drained.items():
        assert members == MEMBERS[name] | {f"gpu5/{name}-0": False}
    assert two.upstreams() == MEMBERS
    assert two.pids("alpha") | two.pids("beta") == before
    assert set(statuses) == {200}


def programs(two: Two) -> dict[str, str]:
    """Whether each program that can be the balancer is enabled, and active."""
    told = "echo $(systemctl is-enabled $p) $(systemctl is-active $p)"
    lines = two.ssh(BALANCER, f"for p in nginx haproxy; do {told}; done").splitlines()
    return dict(zip(("nginx", "haproxy"), lines, strict=True))


def test_haproxy_takes_the_place_of_nginx(two: Two):
    nobody = two.pids("alpha") | two.pids("beta")
    both = two.both(**LATER, program="haproxy")
    run = two.apply(both)
    assert "nginx serves here: at the end of this deploy haproxy takes its place" in run.text
    assert programs(two) == {"nginx": "disabled inactive", "haproxy": "enabled active"}
    assert two.upstreams() == MEMBERS
    again = two.apply(both, *FAST, "-vv")
    assert again.changes == 0 and again.ssh_commands(BALANCER) <= 4, again.text
    assert two.pids("alpha") | two.pids("beta") == nobody


def test_haproxy_rolls_and_drains_without_a_lost_request(two: Two):
    alpha, beta = two.pids("alpha"), two.pids("beta")
    service, since = two.beta(), two.ssh(BALANCER, "date +%s").strip()
    with two.asking(lambda: two.completion(service)) as statuses:
        changed = LATER | {"beta": {"arguments": {"threads-http": 4}}}
        run = two.apply(two.both(**changed, program="haproxy"), *FAST)
        now = two.pids("beta")
        assert now.keys() == beta.keys() and not set(now.items()) & set(beta.items()), run.text
        two.apply(two.both(**changed, program="haproxy", gpu5={"drained": True}), *FAST)
        drained = two.upstreams()
        two.apply(two.both(**changed, program="haproxy"), *FAST)
    assert drained["beta"] == MEMBERS["beta"] | {"gpu5/beta-0": False}
    assert two.upstreams() == MEMBERS and two.pids("alpha") == alpha
    assert set(statuses) == {200} and len(statuses) > 20
    journal = f"sudo journalctl -u haproxy --since @{since} -o cat --no-pager"
    log = two.ssh(BALANCER, f"{journal} | grep '^{{'")
    asked = [one for one in map(json.loads, log.splitlines()) if one["service"] == "beta"]
    assert {one["status"] for one in asked} == {200} and len(asked) >= len(statuses)


def test_nginx_takes_its_place_again(two: Two):
    two.apply(two.both(**LATER), *FAST)
    assert programs(two) == {"nginx": "enabled active", "haproxy": "disabled inactive"}
    assert two.upstreams() == MEMBERS
    assert two.completion(two.alpha(**LATER["alpha"])) == two.completion(two.beta()) == 200


def cut_off(two: Two) -> list[dict[str, Any]]:
    """Requests that reached a replica and got no answer of it, as the balancer logged them."""
    text = two.ssh(BALANCER, "sudo cat /var/log/nginx/llm.access.log")
    requests = [json.loads(line) for line in text.splitlines()]
    return [one for one in requests if ":" in one["upstream"] and one["status"] >= 500]


def test_a_retired_host_is_drained_and_taken_down(two: Two):
    retired = two.both(**LATER, gpu5={"retired": True})
    others = two.pids("alpha", "gpu6") | two.pids("beta", "gpu6")
    with two.asking(lambda: two.completion(two.beta())) as statuses:
        run = two.apply(retired, *FAST)
    assert set(statuses) == {200}, run.text
    assert two.upstreams() == {
        name: {id: True for id in members if id.startswith("gpu6")}
        for name, members in MEMBERS.items()
    }
    assert two.ssh("gpu5", "systemctl list-units --all --plain --no-legend 'llm-engine@*'") == ""
    assert two.ssh("gpu5", "ls /etc/llm/replicas") == ""
    assert two.pids("alpha", "gpu6") | two.pids("beta", "gpu6") == others
    assert two.apply(retired, *FAST).changes == 0
    two.apply(two.both(**LATER), *FAST)
    assert two.upstreams() == MEMBERS
    assert cut_off(two) == []


def test_a_service_that_left_is_drained_and_taken_down(two: Two):
    alpha, gone = two.pids("alpha"), two.beta()
    with two.asking(lambda: two.completion(gone)) as statuses:
        run = two.apply(two.alone(*GPUS), *FAST)
    assert two.pids("alpha") == alpha, run.text
    assert two.pids("beta") == {}
    assert two.upstreams() == {"alpha": MEMBERS["alpha"]}
    for name in GPUS:
        assert "beta" not in two.ssh(name, "ls /etc/llm/replicas; cat /etc/llm/manifest.json")
    # No replica ended before its requests did: from its drain on the balancer refused them.
    assert cut_off(two) == [], run.text
    assert statuses[0] == 200 and statuses[-1] == 0


def test_a_host_that_vanished_is_named_and_leaves_the_upstreams(two: Two):
    vanished = two.pids("alpha", "gpu5")
    run = two.apply(two.alone("gpu6"), *FAST)
    assert "gpu5/alpha-0 was in the upstream and is in no plan any more" in run.text
    assert two.upstreams() == {"alpha": {"gpu6/alpha-0": True, "gpu6/alpha-1": True}}
    # Whether it may be touched nobody says.
    assert two.pids("alpha", "gpu5") == vanished
