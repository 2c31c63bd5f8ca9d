"""What a deploy removes because no replica starts from it any more, and what it leaves."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.launch.hosts import Host

ONE: dict[str, Any] = {"q0": (8001, [0])}
TWO: dict[str, Any] = {**ONE, "q1": (8002, [1])}
# The digests of the adapters that engines e1 to e4 start with.
DIGESTS = {f"e-{number}": f"{number:016x}" for number in range(1, 5)}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def deploy(host: Host, engine: str, **more: Any) -> None:
    """A deploy copies adapters before replicas move, and replicas fill their caches."""
    caches = [host.root / "cache" / name / f"{engine}-l40s" for name in ("q0", "q1")]
    lines = [host.root / "adapters" / DIGESTS[engine], *caches]
    host.starts[engine] = "".join(f"{path}\n" for path in lines)
    lines[0].mkdir(exist_ok=True)
    for name, path in zip(("q0", "q1"), caches, strict=True):
        if name in more:
            (path / "triton").mkdir(parents=True, exist_ok=True)
    host.deploy(engine, **more)


def there(host: Host, folder: str) -> set[str]:
    return {path.name for path in (host.root / folder).iterdir()}


def test_what_the_last_and_the_former_start_name_stays(host: Host):
    for engine in DIGESTS:
        deploy(host, engine, **TWO)
    assert there(host, "adapters") == {DIGESTS["e-3"], DIGESTS["e-4"]}
    for name in ("q0", "q1"):
        assert there(host, f"cache/{name}") == {"e-3-l40s", "e-4-l40s"}


def test_nothing_goes_while_a_replica_has_not_moved(host: Host):
    deploy(host, "e-1", **TWO)
    deploy(host, "e-2", **TWO)
    host.broken = {"q1"}
    with pytest.raises(SystemExit):
        deploy(host, "e-3", **TWO)
    assert {DIGESTS["e-1"], DIGESTS["e-2"]} <= there(host, "adapters")
    assert {"e-1-l40s", "e-2-l40s"} <= there(host, "cache/q1")


def test_a_replica_that_is_gone_takes_its_caches_along(host: Host):
    deploy(host, "e-1", **TWO)
    deploy(host, "e-1", **ONE)
    assert there(host, "cache") == {"q0"} and there(host, "adapters") == {DIGESTS["e-1"]}
    # A retired host keeps nothing.
    deploy(host, "e-1")
    assert (there(host, "cache"), there(host, "adapters")) == (set(), set())


def test_one_that_is_left_out_keeps_what_it_starts_from(host: Host):
    deploy(host, "e-1", **TWO)
    host.stop("q1")
    for engine in ("e-2", "e-3"):
        deploy(host, engine, **TWO, left_out=["q1"])
    assert "e-1-l40s" in there(host, "cache/q1") and DIGESTS["e-1"] in there(host, "adapters")


def test_what_is_not_ours_stays(host: Host):
    outside = host.root / "elsewhere"
    (outside / "vllm-0.30.0-l40s").mkdir(parents=True)
    (host.root / "adapters/mine").mkdir()
    (host.root / "adapters" / f"{9:016x}").symlink_to(outside)
    (host.root / "cache/hub").mkdir()
    (host.root / "cache/q0/sglang").mkdir(parents=True)
    # A compromised engine puts a link in the way.
    (host.root / "cache/q0/vllm-0.1.0-l40s").symlink_to(outside)
    deploy(host, "e-1", **TWO)
    assert {"mine", f"{9:016x}"} <= there(host, "adapters")
    assert "hub" in there(host, "cache") and "sglang" in there(host, "cache/q0")
    assert (outside / "vllm-0.30.0-l40s").is_dir()


def test_caches_are_removed_as_the_engines_user(host: Host):
    """Its replicas may write there: root would follow the links that they make."""
    old = host.root / "cache/q0/vllm-0.1.0-l40s"
    old.mkdir(parents=True)
    deploy(host, "e-1", **ONE)
    (command,) = [one for one in host.commands if "rm -rf" in one]
    assert command == f"runuser -u u -- rm -rf -- {old}" and not old.exists()


def test_nothing_goes_where_a_start_cannot_be_read(host: Host):
    deploy(host, "e-1", **ONE)
    deploy(host, "e-2", **ONE)
    (host.root / "adapters" / DIGESTS["e-4"]).mkdir()
    environment = host.root / "replicas/q0/2/environment"
    environment.unlink()
    environment.symlink_to("nowhere")
    deploy(host, "e-3", **ONE)
    assert there(host, "adapters") == set(DIGESTS.values())
