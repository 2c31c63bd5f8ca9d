"""The host of two different cards: one service whose layers are split over both of them."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.lab import gguf, hosts
from tests.lab.conftest import ROOT, Fleet
from tests.lab.inventories import MIXED_GPUS
from tests.lab.paths import GGUF_FOLDER
from tests.lab.services import BALANCER, FAST, Services

UNIT = "llm-engine@wide-0.service"
# Layers take turns: a short look at a busy machine may see one card idle.
PROOF = {"load_s": 15, "load_max_tokens": 64, "completion_timeout_s": 60}
LAYER_BYTES = 300_000_000
APPS = "nvidia-smi --query-compute-apps=gpu_name,pid,used_memory --format=csv,noheader"
CARDS = "nvidia-smi --query-gpu=name,memory.total,utilization.gpu --format=csv,noheader,nounits"
NAMES = ["NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3090"]


class Mixed(Services):
    """One service that neither card holds alone, through the balancer."""

    def wide(self) -> dict[str, Any]:
        # A CPU build splits nothing by itself: two processes stand for the cards.
        arguments = {"rpc": ",".join(hosts.rpc_addresses("gpu4"))}
        weights = f"{GGUF_FOLDER}/{gguf.SLOW}"
        return self.service("wide", {}, weights=weights, arguments=arguments)

    def model(self, name: str) -> Path:
        """The slow model, as if its layers were so large that they fill both cards."""
        command = ["-m", "roles.models", "read", "--id", f"lab/{name}"]
        source = gguf.gguf() / gguf.SLOW
        done = subprocess.run(
            [sys.executable, *command, source], cwd=ROOT, check=True, stdout=subprocess.PIPE
        )
        model = json.loads(done.stdout)
        (layers,) = model["gguf"]["layers"]
        model["weights_bytes"] += layers["count"] * (LAYER_BYTES - layers["weights_bytes"])
        layers["weights_bytes"] = LAYER_BYTES
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(model))
        return file


@pytest.fixture(scope="module")
def mixed(lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    """The service after a good first run that proved it."""
    with hosts.booted(BALANCER, "gpu4"):
        made = Mixed(tmp_path_factory.mktemp("mixed"))
        made.apply(made.inventory([made.wide()], MIXED_GPUS, validation=PROOF))
        yield made


def test_each_card_says_what_it_is(mixed: Mixed):
    rows = [line.split(", ") for line in mixed.ssh("gpu4", CARDS).splitlines()]
    assert [row[:2] for row in rows] == list(map(list, zip(NAMES, ["24564", "24576"], strict=True)))
    assert "GA102 [GeForce RTX 3090]" in mixed.ssh("gpu4", "lspci")


def test_it_is_proved_through_the_balancer_by_its_model(mixed: Mixed):
    checks = json.loads((mixed.reports / "report.json").read_text())["checks"]
    found = {(one["host"], one["name"]): one["outcome"] for one in checks}
    assert found[BALANCER, "completion"] == found["gpu4", "completion"] == "pass"
    assert {one["outcome"] for one in checks} <= {"pass", "warn", "skipped"}, checks
    assert mixed.upstreams() == {"wide": {"gpu4/wide-0": True}}
    assert mixed.completion(mixed.wide()) == 200
    other = mixed.key("other")
    assert mixed.status(BALANCER, "http://10.99.0.18:8001", "lab/wide", other) == 401


def test_its_layers_are_split_over_both_cards(mixed: Mixed):
    (replica,) = mixed.replicas("gpu4").values()
    held = [line.split(", ") for line in mixed.ssh("gpu4", APPS).splitlines()]
    assert [row[:2] for row in held] == [[name, replica.pid] for name in NAMES]
    assert all(int(row[2].split()[0]) > 518 for row in held), held
    options = mixed.ssh("gpu4", f"ps -p {replica.pid} -ww -o args=").split()
    assert options[options.index("--n-gpu-layers") + 1] == "all", options
    parts = [float(part) for part in options[options.index("--tensor-split") + 1].split(",")]
    assert len(parts) == 2 and parts[0] < parts[1] < parts[0] * 1.02


def busy(mixed: Mixed) -> list[int]:
    """How much each card is used, in percent."""
    return [int(line.split(", ")[2]) for line in mixed.ssh("gpu4", CARDS).splitlines()]


def both_were_used(seen: list[list[int]]) -> bool:
    return bool(seen) and all(max(card) > 10 for card in zip(*seen, strict=True))


def test_it_keeps_both_cards_busy(mixed: Mixed):
    seen: list[list[int]] = []
    with ThreadPoolExecutor() as pool:
        # Requests may be over before a slow machine has looked.
        while len(seen) < 50 and not both_were_used(seen):
            asked = [pool.submit(mixed.completion, mixed.wide(), 400) for _ in range(2)]
            while not all(one.done() for one in asked):
                seen.append(busy(mixed))
            assert [one.result() for one in asked] == [200, 200]
    assert both_were_used(seen), seen
    assert max(busy(mixed)) < 5


def test_a_second_run_changes_nothing(mixed: Mixed):
    before = mixed.replicas("gpu4")
    run = mixed.apply(mixed.inventory([mixed.wide()], MIXED_GPUS), *FAST)
    assert run.changes == 0, run.text
    assert mixed.replicas("gpu4") == before


def test_it_stops_at_once_where_nothing_runs(mixed: Mixed):
    start = time.monotonic()
    mixed.ssh("gpu4", f"sudo systemctl stop {UNIT}")
    assert time.monotonic() - start < 20
    assert mixed.ssh("gpu4", APPS) == ""
