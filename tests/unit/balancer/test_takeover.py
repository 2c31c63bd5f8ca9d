"""A site that commit eaed66b wrote becomes a state and an upstream in a file of its own."""

import subprocess
from pathlib import Path

import pytest

from roles.balancer.nginx import paths
from roles.balancer.nginx.render import render_client_keys, render_engine_key, render_upstreams
from roles.balancer.nginx.takeover import OldBalancer, keys_script, take_over
from roles.balancer.nginx.template import drain_problem

from .fleets import route

OLD = Path(__file__).parents[2] / "data" / "balancer-eaed66b"
SERVICE = "qwen2.5-14b"
IDS = [f"gpu1/{SERVICE}-0", f"gpu1/{SERVICE}-1", f"gpu2/{SERVICE}-0", f"gpu3/{SERVICE}-0"]


def of(name: str) -> OldBalancer:
    found = take_over((OLD / name).read_text(), "run", "now")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "drains", "failures"),
    [
        ("llm.conf", {}, {}),
        ("llm.troubled.conf", {IDS[3]: "inventory"}, {IDS[1]: "HTTP 500"}),
        ("llm.kept.conf", {IDS[3]: "inventory"}, dict.fromkeys(IDS[:3], "timed out")),
        ("llm.aside.conf", dict.fromkeys(IDS[:3], "rolling-update"), {}),
    ],
)
def test_members_failures_and_drains(name: str, drains: dict[str, str], failures: dict[str, str]):
    found = of(name)
    (upstream,) = found.state.upstreams
    assert (upstream.service, upstream.name) == (found.service, "llm") == (SERVICE, "llm")
    assert [(one.id, one.host, one.endpoint, one.weight) for one in upstream.members] == [
        (IDS[0], "gpu1", "10.0.0.1:8001", 1),
        (IDS[1], "gpu1", "10.0.0.1:8002", 1),
        (IDS[2], "gpu2", "10.0.0.2:8001", 2),
        (IDS[3], "gpu3", "[fd00::3]:8001", 1),
    ]
    assert {one.replica: one.owner for one in found.state.drains} == drains
    assert upstream.failures == failures
    assert (found.state.max_fails, found.state.fail_timeout_s) == (2, 10)


def test_nothing_but_the_place_of_the_upstream_changes():
    before, found = (OLD / "llm.conf").read_text(), of("llm.conf")
    start = before.index("upstream llm {")
    end = before.index("}\n", start) + 2
    assert before[start:end] in render_upstreams(found.state)
    assert found.site == f"{before[:start]}include {paths.UPSTREAMS};\n{before[end:]}"
    assert take_over(found.site, "run", "now") is None, "it is taken over once"


@pytest.mark.parametrize("name", ["llm.troubled.conf", "llm.kept.conf", "llm.aside.conf"])
def test_the_same_servers_are_in(name: str):
    def ins(text: str) -> list[str]:
        lines = [line.split(";")[0] for line in text.splitlines() if line.startswith("    server ")]
        return [line.split()[1] for line in lines if ":800" in line and " down" not in line]

    assert ins(render_upstreams(of(name).state)) == ins((OLD / name).read_text())


def test_nothing_to_take_over():
    assert take_over("", "run", "now") is None


@pytest.mark.parametrize(
    "site",
    [
        "server { listen 80; }\n",
        "upstream llm {\n}\n",
        "upstream llm {\n    server 10.0.0.1:80;\n}\n",
        "upstream llm {\n    server gpu1:80;  # gpu1/a-0\n}\n",
        "upstream a {\n    server 10.0.0.1:80;  # gpu1/a-0\n}\n" * 2,
    ],
)
def test_what_cannot_be_read(site: str):
    with pytest.raises(ValueError, match=r"cannot be taken over: .*move the file"):
        take_over(site, "run", "now")


def test_its_keys_become_those_of_its_service(tmp_path: Path):
    (tmp_path / "keys.conf").write_bytes((OLD / "keys.conf").read_bytes())
    script = keys_script(SERVICE).replace(paths.FOLDER, str(tmp_path))
    subprocess.run(["sh", "-c", f"set -eu\n{script}"], check=True)
    new = route(SERVICE)
    for path, text in (
        (paths.client_keys(SERVICE), render_client_keys(new)),
        (paths.engine_key(SERVICE), render_engine_key(new)),
    ):
        file = Path(path.replace(paths.FOLDER, str(tmp_path)))
        assert file.read_text() == text
        assert file.stat().st_mode & 0o777 == 0o600


def test_an_old_site_would_ignore_drains():
    assert drain_problem((OLD / "llm.conf").read_text())
