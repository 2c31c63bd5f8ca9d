"""The watchdog's own program against an engine that hangs; times are tenths of the defaults."""

import ast
import fcntl
import re
import socket
import subprocess
import time
from collections import Counter
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path

import pytest

from roles.watchdog.on_host.exposition import METRICS
from roles.watchdog.on_host.scrape import probe, scrape
from roles.watchdog.program import helper_program, watchdog_program
from roles.watchdog.status import ask_script, parse_status
from tests.render.test_hostile_engines import sending
from tests.render.watched_host import SLOTS, WATCH, answers, free_port, running, watched


@pytest.mark.parametrize("program", [watchdog_program, helper_program])
def test_the_oldest_python_of_a_host_reads_each_program(program):
    tree = ast.parse(program(), feature_version=(3, 8))
    names = Counter(node.name for node in tree.body if isinstance(node, ast.ClassDef))
    names.update(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    names.update(
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    )
    # All modules are one there: none may take another's name.
    assert [name for name, count in names.items() if count > 1] == []


def test_a_busy_engine_that_stops_leaves_is_restarted_once_and_comes_back(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1") as host:
        engine = host.engines["q-0"]
        engine.busy = 3
        host.until(lambda: engine.steps > 3)
        stopped_at = time.monotonic()
        engine.hangs.set()
        host.until(lambda: "close" in host.done_to("q-0"))
        assert host.first("close", "q-0") - stopped_at <= 1.2
        # What balancers hear follows at the end of the same look.
        host.until(lambda: host.ask("q-0") == "down")
        host.until(lambda: "restart" in host.done_to("q-0"))
        assert 3.0 <= host.first("restart", "q-0") - stopped_at <= 4.8
        host.until(lambda: "open" in host.done_to("q-0"))
        assert host.state("q-0") == "serving"
        assert host.ask("q-0") == "up 100%"
        assert sorted(host.done_to("q-0")) == ["close", "evidence", "open", "restart"]
        restarts = [one for one in host.commands if one[0] == "restart"]
        assert (len(restarts), host.done_to("q-1")) == (1, [])


def test_an_engine_without_metrics_is_alive_while_it_tells_of_its_slots(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1", watch=SLOTS) as host:
        engine = host.engines["q-0"]
        engine.busy = 3
        before = engine.questions
        # Twice the time in which it would have left.
        host.until(lambda: engine.questions > before + 8)
        time.sleep(1.6)
        assert (host.state("q-0"), host.commands) == ("serving", [])
        stopped_at = time.monotonic()
        engine.hangs.set()
        host.until(lambda: "close" in host.done_to("q-0"))
        assert host.first("close", "q-0") - stopped_at <= 1.3
        host.until(lambda: "open" in host.done_to("q-0"))
        assert (host.state("q-0"), host.starts["q-0"]) == ("serving", 2)


def test_an_idle_engine_without_metrics_is_restarted_in_the_same_time(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1", watch=SLOTS) as host:
        time.sleep(1)
        stopped_at = time.monotonic()
        host.engines["q-0"].hangs.set()
        host.until(lambda: "restart" in host.done_to("q-0"))
        # Without a counter it would be four times later.
        assert 3.0 <= host.first("restart", "q-0") - stopped_at <= 7
        host.until(lambda: "open" in host.done_to("q-0"))
        assert host.state("q-0") == "serving"


def test_an_idle_engine_without_metrics_that_a_deploy_started_is_restarted_in_that_time(
    tmp_path: Path,
):
    with watched(tmp_path, "q-0", "q-1", watch=SLOTS) as host:
        with open(tmp_path / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            time.sleep(0.5)
            host.starts["q-0"] += 1
            host.write_units()
            host.until(lambda: host.state("q-0") == "starting")
            time.sleep(1)
        host.until(lambda: host.state("q-0") == "serving")
        time.sleep(0.5)
        stopped_at = time.monotonic()
        host.engines["q-0"].hangs.set()
        host.until(lambda: "restart" in host.done_to("q-0"))
        assert 3.0 <= host.first("restart", "q-0") - stopped_at <= 7


@pytest.mark.parametrize("page", [b"{", b"5", b"[5]", b'[{"x": 1}]', b"x" * (2 << 20)])
def test_slots_that_are_none_do_no_harm_and_are_told(tmp_path: Path, page: bytes):
    with watched(tmp_path, "q-0", "q-1", watch=SLOTS) as host:
        host.engines["q-0"].page = page
        host.until(lambda: "the metrics of q-0: slots: " in host.log())
        time.sleep(2)
        assert (host.state("q-0"), host.commands) == ("serving", [])


def test_an_idle_engine_that_stops_is_found_and_comes_back_by_itself(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1") as host:
        time.sleep(1)
        stopped_at = time.monotonic()
        host.engines["q-0"].hangs.set()
        host.until(lambda: "close" in host.done_to("q-0"))
        assert host.first("close", "q-0") - stopped_at <= 1.6
        # It goes on before it would be restarted.
        host.engines["q-0"].hangs.clear()
        host.until(lambda: "open" in host.done_to("q-0"))
        assert "restart" not in host.done_to("q-0")


def test_the_last_one_that_is_in_stays_in_and_one_is_restarted_first(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1") as host:
        for engine in host.engines.values():
            engine.busy = 2
        time.sleep(0.5)
        for engine in host.engines.values():
            engine.hangs.set()
        host.until(lambda: "restart" in host.done_to("q-0"))
        assert "restart" not in host.done_to("q-1")
        closed = [name for name in host.engines if "close" in host.done_to(name)]
        assert len(closed) <= 1
        # The second one follows once the first one serves.
        host.until(lambda: "restart" in host.done_to("q-1"))
        assert host.first("restart", "q-1") > host.first("restart", "q-0")


def test_a_deploy_that_holds_the_host_pauses_all(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1") as host:
        with open(tmp_path / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            time.sleep(0.5)
            host.engines["q-0"].busy = 1
            host.engines["q-0"].hangs.set()
            time.sleep(4.5)
            assert host.commands == []
        host.until(lambda: "close" in host.done_to("q-0"))


# Nobody listens there.
NOBODY = [{"host": "b", "address": "127.0.0.9", "replicas": {"q-8": "q"}}]


def test_a_host_that_cannot_be_asked_opens_the_breaker(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1", peers=NOBODY) as host:
        host.engines["q-0"].busy = 1
        time.sleep(0.5)
        host.engines["q-0"].hangs.set()
        host.until(lambda: "close" in host.done_to("q-0"))
        host.until(lambda: "1 of 1 other hosts cannot be asked" in host.log())
        time.sleep(1)
        assert "restart" not in host.done_to("q-0")
        assert 'llm_watchdog_breaker_open{service="q"} 1' in (tmp_path / "llm.prom").read_text()


@pytest.mark.parametrize(
    "page",
    [b"x" * (2 << 20), b"s_total NaN\nbusy -1\n", b"\xff\0{" * 1000, b"s_total 5"],
    ids=["huge", "no numbers", "nonsense", "cut"],
)
def test_a_page_of_nonsense_does_no_harm_and_is_told(tmp_path: Path, page: bytes):
    with watched(tmp_path, "q-0") as host:
        host.engines["q-0"].page = page
        host.until(lambda: "the metrics of q-0: metrics" in host.log())
        time.sleep(2)
        assert (host.state("q-0"), host.commands) == ("serving", [])
        assert (
            'llm_watchdog_unreadable{what="the metrics of q-0"} 1'
            in (tmp_path / "llm.prom").read_text()
        )


def test_a_replica_that_dies_of_a_lost_gpu_is_quarantined_at_once(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1") as host:
        host.answers["evidence"] = {"ok": True, "step": "reboot", "reason": "GPU 0: lost"}
        host.starts["q-0"] += 1
        host.write_units()
        host.until(lambda: "quarantine" in host.done_to("q-0"))
        # A fleet that allows reboots would have one.
        assert host.done_to("q-0")[0] == "evidence" and "restart" not in host.done_to("q-0")
        assert host.done_to("q-1") == []


def test_the_metrics_have_the_labels_that_are_documented(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1", peers=NOBODY) as host:
        host.engines["q-0"].page = b"nonsense"
        host.engines["q-1"].hangs.set()
        host.until(lambda: "close" in host.done_to("q-1") and "the metrics of q-0" in host.log())
        file, found = tmp_path / "llm.prom", dict[str, set[tuple[str, ...]]]()

        def seen() -> bool:
            for line in file.read_text().splitlines():
                name, _, labels = re.sub(r" [^ ]*$", "", line).partition("{")
                if not line.startswith("#"):
                    found.setdefault(name, set()).add(tuple(re.findall(r'(\w+)="', labels)))
            return found.keys() == METRICS.keys()

        host.until(seen)
    assert found == {name: {labels} for name, (_, _, labels, _) in METRICS.items()}


def test_a_replica_that_dies_of_itself_is_systemds(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1") as host:
        host.starts["q-0"] += 1
        host.write_units()
        host.until(lambda: "starting" in host.log().rpartition("q-0: serving -> ")[2])
        host.until(lambda: host.state("q-0") == "serving" and host.commands)
        assert host.done_to("q-0") == ["evidence"]


def test_its_state_is_shown_in_words(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1") as host:
        script = ask_script(host.port)

        def shown() -> str:
            done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
            return "\n".join(parse_status(done.stdout.splitlines()).lines)

        assert re.match(r"q-0 \(q\): serving for \d s, in the rotation; 0 requests; ", shown())
        host.engines["q-0"].hangs.set()
        host.until(lambda: "close" in host.done_to("q-0"))
        assert re.search(
            r"q-0 \(q\): out for .*, out of the rotation.*\nq-0 is out: no compl", shown()
        )
    assert parse_status([]).lines == (
        "its watchdog gives no answer: systemctl status llm-watchdog",
    )


def test_a_cut_manifest_leaves_the_last_good_one(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1") as host:
        text = (tmp_path / "manifest.json").read_text()
        (tmp_path / "manifest.json").write_text(text[: len(text) // 2])
        host.until(lambda: "manifest.json: cannot be read" in host.log())
        assert (host.state("q-0"), host.commands) == ("serving", [])
        host.engines["q-0"].hangs.set()
        host.until(lambda: "close" in host.done_to("q-0"))


def test_a_watchdog_that_is_started_anew_knows_who_was_out(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1") as host:
        host.engines["q-0"].busy = 1
        time.sleep(0.5)
        host.engines["q-0"].hangs.set()
        host.until(lambda: "close" in host.done_to("q-0"))
        host.until(lambda: '"out"' in (tmp_path / "state.json").read_text())
        host.port += 1
        with running(host):
            host.until(lambda: host.state("q-0") == "out")
            assert host.state("q-1") == "serving"


def test_a_quarantined_replica_is_left_alone(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1") as host:
        (tmp_path / "quarantine/q-0.json").write_text('{"reason": "Xid 79"}')
        host.until(lambda: host.state("q-0") == "quarantined")
        host.engines["q-0"].hangs.set()
        time.sleep(1)
        assert (host.ask("q-0"), host.commands) == ("down", [])
        (tmp_path / "quarantine/q-0.json").unlink()
        host.engines["q-0"].hangs.clear()
        host.until(lambda: host.state("q-0") == "serving")


def test_a_quarantine_that_cannot_be_read_is_one_all_the_same(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1") as host:
        (tmp_path / "quarantine/q-0.json").write_text("{")
        host.until(lambda: host.state("q-0") == "quarantined")
        assert "cannot be read" in host.log() and host.commands == []


def test_a_systemd_that_does_not_answer_pauses_all(tmp_path: Path):
    with watched(tmp_path, "q-0", "q-1") as host:
        program = (tmp_path / "systemctl").read_text()
        (tmp_path / "systemctl").write_text("#!/bin/sh\nexit 1\n")
        host.until(lambda: "systemctl: does not answer" in host.log())
        host.engines["q-0"].busy = 1
        host.engines["q-0"].hangs.set()
        time.sleep(4.5)
        assert host.commands == []
        (tmp_path / "systemctl").write_text(program)
        host.until(lambda: "close" in host.done_to("q-0"))


def test_two_hosts_take_turns(tmp_path: Path):
    """Each has one replica of the service; both hang at once."""
    port = free_port()
    a, b = ("127.0.0.1", "127.0.0.2")
    peer_a = {"host": "a", "address": a, "replicas": {"q-0": "q"}}
    peer_b = {"host": "b", "address": b, "replicas": {"q-1": "q"}}
    with (
        watched(tmp_path / "a", "q-0", address=a, port=port, peers=[peer_b]) as one,
        watched(tmp_path / "b", "q-1", address=b, port=port, host="b", peers=[peer_a]) as other,
    ):
        for host in (one, other):
            for engine in host.engines.values():
                engine.busy = 2
        time.sleep(0.5)
        for host in (one, other):
            for engine in host.engines.values():
                engine.hangs.set()
        one.until(lambda: "restart" in one.done_to("q-0"))
        assert "restart" not in other.done_to("q-1")
        assert not ("close" in one.done_to("q-0") and "close" in other.done_to("q-1"))
        # It serves again, so the other one leaves and follows.
        other.until(lambda: "restart" in other.done_to("q-1"))
        other.until(lambda: other.state("q-1") == "serving")
        assert (one.starts, other.starts) == ({"q-0": 2}, {"q-1": 2})


def test_the_agent_port_takes_no_long_question_and_no_slow_one(tmp_path: Path):
    with watched(tmp_path, "q-0") as host:
        assert host.ask("q-9") == ""
        with socket.create_connection((host.address, host.port)) as slow:
            slow.settimeout(5)
            slow.sendall(b"q-")
            assert slow.recv(10) == b""
        with suppress(ConnectionResetError):
            assert host.ask("x" * 5000) == ""
        # However many connections stay open, others are answered once these have had their time.
        crowd = [socket.create_connection((host.address, host.port)) for _ in range(80)]
        host.until(lambda: answers(host) and host.ask("q-0") == "up 100%")
        for one in crowd:
            one.close()


OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece", "pause_s", "outcome"),
    [
        (OK, b"x" * (1 << 20), 0, "unreadable"),
        (OK, b"s_total 1\n", 0.05, "late"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05, "late"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x", 0.05, "unreadable"),
    ],
    ids=["endless", "slow", "never begins", "announces too much"],
)
def test_a_page_without_end_is_left_in_time(
    start: bytes, piece: bytes, pause_s: float, outcome: str
):
    with sending(lambda: chain([start], repeat(piece)), pause_s) as url:
        begin = time.monotonic()
        assert scrape(int(url.rpartition(":")[2]), WATCH, "", 1).outcome == outcome
        assert time.monotonic() - begin < 3
        kind = probe(int(url.rpartition(":")[2]), "m", "", 1, 1).kind
        assert kind in ("silent", "wrong") and time.monotonic() - begin < 5
