"""A real SGLang on one host, made once: a replica on one card, and one over two cards."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.lab import hosts, sglang
from tests.lab.conftest import Fleet
from tests.lab.paths import MODEL_PATH
from tests.lab.services import BALANCER, FAST, Services

HOST = "gpu9"
GPUS = {HOST: {"gpus": "4x NVIDIA A10G", "pinned_gpus": {"one": (0,), "two": (1, 2)}}}
MODELS = {"one": "Qwen/Qwen2.5-7B-Instruct", "two": "Qwen/Qwen2.5-14B-Instruct"}
ROUTES = {"one": {"path_prefix": "/one"}, "two": {"path_prefix": "/two"}}
APPS = "nvidia-smi --query-compute-apps=gpu_uuid,pid,process_name --format=csv,noheader"
# Cores of the one machine here: without it SGLang shares them out by NUMA nodes.
BOUND = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1"}


class Two(Services):
    """Two services on SGLang, whose models stand for the tiny one that hosts have."""

    def own(self, name: str, **settings: Any) -> dict[str, Any]:
        engine = {"sglang": {"environment": BOUND if name == "two" else {}}}
        given = {
            "model": MODELS[name],
            "weights": MODEL_PATH,
            "engine": engine,
            "first_port": 8001 if name == "one" else 8002,
            "min_concurrency": 2,
            # 56 KiB a token by the plan; the tiny model takes 512 bytes.
            "kv_cache_memory_bytes": 2**29,
            "arguments": sglang.ARGUMENTS,
        }
        return self.service(name, ROUTES[name], **given | settings)

    def model(self, name: str) -> Path:
        """None of them is a file: they are in the catalog."""
        return Path(MODELS[name])

    def both(self) -> Path:
        services = [self.own("one"), self.own("two")]
        engines = {"sglang": sglang.settings()}
        return self.inventory(services, GPUS, launch={"start_timeout_s": 600}, engines=engines)

    def asked(self, name: str, model: str | None = None) -> int:
        """The status of a completion through the balancer."""
        service = self.own(name)
        url = f"https://{hosts.host(BALANCER).address}{ROUTES[name]['path_prefix']}"
        key = Path(service["route"]["api_key_file"])
        return self.status(None, url, model or MODELS[name], key)


@pytest.fixture(scope="module")
def two(lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Both services after a good first run that proved them."""
    sglang.serve_wheels()
    with hosts.booted(BALANCER, HOST):
        made = Two(tmp_path_factory.mktemp("sglang"))
        # It is larger unpacked than a tmpfs of half the host's memory may hold.
        made.ssh(HOST, "sudo mount -o remount,size=4G /tmp")
        made.apply(made.both())
        yield made


def checks(two: Two) -> Mapping[tuple[str, str], str]:
    """The outcome of each check of the first run, by its name and replica."""
    found = json.loads((two.reports / "report.json").read_text())["checks"]
    return {(one["name"], one["subject"]): one["outcome"] for one in found if one["host"] == HOST}


def test_both_are_proved_and_answer_through_the_balancer(two: Two):
    assert two.upstreams() == {"one": {f"{HOST}/one-0": True}, "two": {f"{HOST}/two-0": True}}
    assert [two.asked("one"), two.asked("two")] == [200, 200]
    seen = checks(two)
    for name in ("completion", "stream", "model", "process", "memory", "stability"):
        assert {seen[name, "one-0"], seen[name, "two-0"]} == {"pass"}, (name, seen)
    assert set(seen.values()) <= {"pass", "warn", "skipped"}, seen


def test_each_rank_is_on_the_planned_card(two: Two):
    held = [line.split(", ") for line in two.ssh(HOST, APPS).splitlines()]
    titles = sorted(row[2] for row in held)
    assert titles == ["sglang::scheduler", "sglang::scheduler_TP0", "sglang::scheduler_TP1"]
    options = two.ssh(HOST, "sudo cat /etc/llm/replicas/two-0/current/options.yaml")
    assert "tp-size: 2\n" in options and "mem-fraction-static: 0." in options


def test_its_key_is_in_no_argument_and_in_no_line_of_its_log(two: Two):
    for name in ("one", "two"):
        key = two.key(f"{name}-engine").read_text().strip()
        unit = f"llm-engine@{name}-0"
        log = two.ssh(HOST, f"sudo journalctl -u {unit} --no-pager -o cat")
        assert "fired up and ready to roll" in log and key not in log
        assert key not in two.ssh(HOST, "ps -eww -o args=")
        assert key not in two.ssh(HOST, f"systemctl show {unit}")
        url = f"http://{hosts.host(HOST).address}:{8001 if name == 'one' else 8002}"
        assert two.status(BALANCER, url, "any/name", two.key(f"{name}-engine")) == 200
        assert two.status(BALANCER, url, MODELS[name], two.key("other")) == 401


def test_the_unit_is_hardened_as_others_are(two: Two):
    exposure = two.ssh(HOST, "systemd-analyze security --no-pager llm-engine@two-0 | tail -1")
    assert float(exposure.split(":")[1].split()[0]) <= 2.5, exposure


def test_a_second_run_changes_nothing(two: Two):
    before = two.replicas(HOST)
    run = two.apply(two.both(), *FAST)
    assert run.changes == 0, run.text
    assert two.replicas(HOST) == before


def test_it_ends_by_itself_once_it_is_stopped(two: Two):
    two.ssh(HOST, "sudo systemctl stop llm-engine@two-0")
    log = two.ssh(HOST, "sudo journalctl -u llm-engine@two-0 --no-pager -o cat -n 200")
    assert not re.search(r"crashed with exit code|timed out\. Killing|Failed with result", log), log
