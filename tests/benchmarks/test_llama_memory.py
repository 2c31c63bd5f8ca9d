"""What the planner says that llama-server takes, against llama-fit-params, model by model.

The files have the shapes of published models and no data. Devices are ggml-rpc-servers, which take
turns as GPUs do; `--no-repack` keeps this CPU's own copies of weights out of the host's sum.
"""

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from roles.engine.gguf.context import Context
from roles.engine.gguf.memory import device_parts, host_part
from roles.engine.gguf.split import layer_counts
from roles.models import GgufShape
from roles.models.folder import read_folder
from tests.gguf_models import make

# One of each kind of architecture, and large and small ones.
MODELS = (
    "Llama-3.1-8B-Instruct",
    "Llama-3.1-70B-Instruct",
    "Mistral-7B-v0.1",
    "Mixtral-8x7B-v0.1",
    "Qwen2-0.5B",
    "Qwen2.5-14B-Instruct",
    "Qwen3-8B",
    "Qwen3-30B-A3B",
    "gemma-2-27b-it",
    "gemma-3-12b-it",
    "phi-4",
    "gpt-oss-20b",
)
# llama.cpp b11434 itself aborts where Phi 3's cache is quantised (ggml-impl.h:330).
ABORTS = {("phi-4", "-ctk q8_0 -ctv q8_0"), ("phi-4", "-ctk q4_0 -ctv q4_0 -ub 256")}
MOST_OFF = 0.02
SLOTS, LENGTH = 4, 8192
SPLITS: tuple[tuple[float, ...], ...] = ((), (1.0,), (3.0, 1.0), (2.0, 1.0, 1.0))
OPTIONS: dict[str, Context] = {
    "": Context(SLOTS, LENGTH),
    "-ctk q8_0 -ctv q8_0": Context(SLOTS, LENGTH, "q8_0", "q8_0"),
    "-ctk q4_0 -ctv q4_0 -ub 256": Context(SLOTS, LENGTH, "q4_0", "q4_0", micro_batch=256),
    "-fa off": Context(SLOTS, LENGTH, flash_attention=False),
}
MIB = 2**20


def programs() -> Path:
    """The folder of llama.cpp's programs: the lab's, or the one that LLAMA_BIN names."""
    if folder := os.environ.get("LLAMA_BIN"):
        return Path(folder)
    lab = pytest.importorskip("tests.lab.llama", reason="set LLAMA_BIN to llama.cpp's programs")
    return lab.llama()


@contextmanager
def device(folder: Path, port: int) -> Iterator[str]:
    """A ggml-rpc-server that stands for a GPU: its address."""
    command = [str(folder / "ggml-rpc-server"), "-H", "127.0.0.1", "-p", str(port), "-t", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def measured(
    folder: Path, file: Path, options: str, split: tuple[float, ...], devices: list[str]
) -> list[tuple[int, int, int]]:
    """MiB of weights, KV and buffers on each device and, last, on the host."""
    command = [str(folder / "llama-fit-params"), "-m", str(file), "--fit-print", "on"]
    command += ["-c", str(SLOTS * LENGTH), "-np", str(SLOTS), *options.split()]
    command += ["--no-repack", "-ngl", "all", "--fit", "off"]
    if split:
        command += ["--rpc", ",".join(devices[: len(split)])]
        command += ["-ts", ",".join(map(str, split))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = re.findall(r"^(?:RPC\d+|Host) (\d+) (\d+) (\d+) *$", done.stdout, re.MULTILINE)
    assert len(found) == len(split) + 1, done.stdout
    return [(int(weights), int(kv), int(buffers)) for weights, kv, buffers in found]


def predicted(
    shape: GgufShape, context: Context, split: tuple[float, ...]
) -> list[tuple[float, float, float]]:
    """The same by the planner, without what CUDA alone converts."""
    counts = layer_counts(split, len(shape.every_layer)) if split else ()
    parts = [*(device_parts(shape, context, counts) if counts else ())]
    parts.append(host_part(shape, context, len(counts)))
    return [(one.weights / MIB, one.kv / MIB, one.compute / MIB) for one in parts]


def test_sums_are_within_two_percent_of_llama_fit_params(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder, lines, worst = programs(), [], 0.0
    with ExitStack() as stack:
        devices = [stack.enter_context(device(folder, free_port())) for _ in range(3)]
        for name in MODELS:
            file = make(tmp_path, name)
            shape = read_folder(file).gguf
            assert shape is not None
            for options, context in OPTIONS.items():
                for split in SPLITS if (name, options) not in ABORTS else ():
                    real = measured(folder, file, options, split, devices)
                    ours = predicted(shape, context, split)
                    ratio = sum(map(sum, ours)) / sum(map(sum, real))
                    # A card's own sum is what a plan stands by.
                    each = [sum(a) / sum(b) for a, b in zip(ours, real, strict=True)]
                    worst = max(worst, abs(ratio - 1), *(abs(one - 1) for one in each[:-1]))
                    lines.append(
                        f"{name:24} {options or 'defaults':28} {len(split)} devices: "
                        f"{sum(map(sum, ours)):9.0f} of {sum(map(sum, real)):9.0f} MiB, "
                        f"ratio {ratio:.4f}, each {' '.join(f'{one:.4f}' for one in each)}"
                    )
    with capsys.disabled():
        print("\n" + "\n".join(lines) + f"\nworst: {worst:.2%} off")
    assert worst <= MOST_OFF
