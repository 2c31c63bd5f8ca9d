"""Runs all-reduces on a host, by the engine's own Python (`python -`) and as an unprivileged user.

A test has one process for each GPU, forked after torch is imported. Every rank sends data that
depends on its number, compares each result with the right sum, and times the largest message. After
each test one line of JSON is printed, which `roles.interconnect.verdicts` reads. All processes end
with this one: it runs in its own unit, and ends when nobody reads its output any more.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import statistics
import sys
import tempfile
import time

from roles.interconnect.modes import next_mode

# The tests to run; `roles.interconnect.program` sets it.
TASK = {}

MARK = "@@ "
TIMED = 7
# Ranks may take this many times the limit of an all-reduce to start: drivers wake up, and libraries
# are loaded.
START_TIMES = 3
# How long the other ranks may take to report an error once one has done so.
GRACE_S = 3
# Parts of the lines of NCCL's log that are kept: channels with their transports, versions, sizes,
# warnings.
LOG_WORDS = ("NCCL version", "NCCL WARN", " via ", "nranks", "nvls channels")
MAX_LOG_LINES = 400


class WrongResultError(Exception):
    """An all-reduce gave a wrong sum."""


def bus_gb_s(ranks, size, seconds):
    """Bus bandwidth of a message of `size` bytes, in decimal GB/s (NCCL-tests, PERFORMANCE.md)."""
    return 2 * (ranks - 1) / ranks * size / seconds / 1e9


def all_reduces(device, rank, ranks, sizes):
    """Check each size and time the last one; returns GB/s. WrongResultError for a wrong sum.

    `device` makes, reduces and compares data.
    """
    total = ranks * (ranks + 1) // 2
    for size in sizes:
        for _ in range(2):
            check(device, rank, total, size)
    size, times = sizes[-1], []
    data = device.data(size, rank + 1)
    for _ in range(TIMED):
        device.wait()
        start = time.perf_counter()
        device.all_reduce(data)
        device.wait()
        times.append(time.perf_counter() - start)
    check(device, rank, total, size)
    return bus_gb_s(ranks, size, statistics.median(times))


def check(device, rank, total, size):
    data = device.data(size, rank + 1)
    device.all_reduce(data)
    device.wait()
    if not device.same(data, device.data(size, total)):
        raise WrongResultError("rank %d has a wrong sum of %d bytes" % (rank, size))


class TorchDevice:
    """Data on one GPU, or on the CPU, and the all-reduce of torch.distributed."""

    def __init__(self, torch, rank, cpu):
        self.torch, self.cpu = torch, cpu
        self.place = torch.device("cpu") if cpu else torch.device("cuda", rank)
        if not cpu:
            torch.cuda.set_device(self.place)

    def data(self, size, factor):
        """`size` bytes of whole numbers that float32 holds exactly, as it does their sums."""
        numbers = self.torch.arange(size // 4, device=self.place, dtype=self.torch.int32) % 1021
        return (numbers * factor).to(self.torch.float32)

    def all_reduce(self, data):
        self.torch.distributed.all_reduce(data)

    def same(self, one, other):
        return bool(self.torch.equal(one, other))

    def wait(self):
        if not self.cpu:
            self.torch.cuda.synchronize()


def library(torch):
    """The library that reduces, with its version."""
    if TASK["cpu"]:
        return "gloo"
    name = "rccl" if getattr(torch.version, "hip", None) else "nccl"
    return "%s %s" % (name, ".".join(map(str, torch.cuda.nccl.version())))


def run_rank(torch, test, rank, folder, send):
    """Run one rank of a test; `send` reports its progress and result to the parent."""
    from datetime import timedelta

    ranks = len(test["devices"])
    send({"library": library(torch)})
    device = TorchDevice(torch, rank, TASK["cpu"])
    device.data(4, 1)
    device.wait()
    send({"ready": True})
    torch.distributed.init_process_group(
        "gloo" if TASK["cpu"] else "nccl",
        # Not torch's TCP store, which listens on every address.
        store=torch.distributed.FileStore(os.path.join(folder, "store"), ranks),
        rank=rank,
        world_size=ranks,
        # The parent ends what hangs; torch must not end it first.
        timeout=timedelta(seconds=10 * TASK["timeout_s"]),
    )
    send({"gb_s": all_reduces(device, rank, ranks, TASK["sizes"])})


def set_process_name(name):
    """Name this process by what it does, for a person who looks at the host."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(name)


def rank_process(torch, test, rank, folder, pipe):
    """Set up a forked process, run its rank, and send its outcome."""
    set_process_name("link-start")
    log = os.open(os.path.join(folder, "rank.%d.log" % rank), os.O_WRONLY | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ[TASK["visible"]] = ",".join(test["devices"])
    os.environ["NCCL_DEBUG"] = "INFO"
    os.environ["NCCL_DEBUG_FILE"] = os.path.join(folder, "nccl.%p.log")
    os.environ.pop("NCCL_P2P_DISABLE", None)
    if not test["p2p"]:
        os.environ["NCCL_P2P_DISABLE"] = "1"

    def send(what):
        os.write(pipe, (json.dumps(what) + "\n").encode())
        if "ready" in what:
            set_process_name("link-p2p" if test["p2p"] else "link-nop2p")

    try:
        run_rank(torch, test, rank, folder, send)
    except WrongResultError as error:
        send({"wrong": str(error)})
    except BaseException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = ": ".join([type(error).__name__, *(lines[-1:] or [])])
        memory = "out of memory" in str(error).lower()
        send({"error": text, "memory": memory})


class Rank:
    """A rank's process as its parent sees it."""

    def __init__(self, torch, test, number, folder):
        self.number, self.messages, self.status, self.rest = number, {}, None, b""
        self.log = os.path.join(folder, "rank.%d.log" % number)
        self.pipe, end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            try:
                rank_process(torch, test, number, folder, end)
            finally:
                # No clean exit: a library's exit handler could wait for other ranks for ever.
                os._exit(0)
        os.close(end)
        os.set_blocking(self.pipe, False)

    def poll(self):
        """Read its messages, and whether it has ended."""
        # The status comes first: messages that it sent before it ended are then read below.
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.pipe, 65536):
                self.rest += chunk
        *lines, self.rest = self.rest.split(b"\n")
        for line in lines:
            self.messages.update(json.loads(line))

    @property
    def has_outcome(self):
        """Whether it has sent its outcome."""
        return bool({"gb_s", "wrong", "error"} & set(self.messages))

    @property
    def crashed(self):
        """Whether it has ended without an outcome."""
        return self.status is not None and not self.has_outcome

    def last_output(self):
        with contextlib.suppress(OSError), open(self.log, errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
            if lines:
                return lines[-1]
        if os.WIFSIGNALED(self.status or 0):
            return "ended by signal %d" % os.WTERMSIG(self.status or 0)
        return "ended without output"

    def end(self):
        """Kill it, and wait a little: a process that hangs in the kernel would never end."""
        os.close(self.pipe)
        with contextlib.suppress(ProcessLookupError):
            if self.status is None:
                os.kill(self.pid, signal.SIGKILL)
        end = time.monotonic() + GRACE_S
        while self.status is None and time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
            time.sleep(0.02)


def reader_is_gone():
    """Whether nobody reads the output any more, as when the connection broke."""
    poll = select.poll()
    poll.register(1, 0)
    return bool(poll.poll(0))


def watch(ranks):
    """Wait until every rank has sent its outcome, one has failed, or time is up."""
    deadline, ready = time.monotonic() + START_TIMES * TASK["timeout_s"], False
    while time.monotonic() < deadline:
        for rank in ranks:
            rank.poll()
        if not ready and all("ready" in rank.messages for rank in ranks):
            deadline, ready = time.monotonic() + TASK["timeout_s"], True
        if all(rank.has_outcome for rank in ranks):
            return
        if any(rank.crashed or {"wrong", "error"} & set(rank.messages) for rank in ranks):
            deadline = min(deadline, time.monotonic() + GRACE_S)
            if all(rank.has_outcome or rank.crashed for rank in ranks):
                return
        if reader_is_gone():
            raise SystemExit(1)
        time.sleep(0.02)


def outcome(ranks):
    """The outcome of a test, from its ranks' messages.

    `unready` means that a rank failed or timed out before it was ready. Until then each rank uses
    its own GPU alone, so this says nothing about links.
    """
    unready = any("ready" not in rank.messages for rank in ranks)
    for rank in ranks:
        if "wrong" in rank.messages:
            return {"outcome": "wrong", "detail": rank.messages["wrong"]}
    for rank in ranks:
        if "error" in rank.messages:
            memory = any(one.messages.get("memory") for one in ranks)
            found = {"outcome": "fails", "detail": rank.messages["error"]}
            return dict(found, memory=memory, unready=unready)
    for rank in ranks:
        if rank.crashed:
            text = "rank %d: %s" % (rank.number, rank.last_output())
            return {"outcome": "fails", "detail": text, "unready": unready}
    if unready:
        text = "start not done in %g s" % (START_TIMES * TASK["timeout_s"])
        return {"outcome": "hangs", "detail": text, "unready": True}
    if not all(rank.has_outcome for rank in ranks):
        return {"outcome": "hangs", "detail": "all-reduce not done in %g s" % TASK["timeout_s"]}
    return {"outcome": "works", "gb_s": min(rank.messages["gb_s"] for rank in ranks)}


def nccl_log(folder):
    """The lines of NCCL's logs about transports, versions and warnings."""
    found = []
    for name in sorted(os.listdir(folder)):
        if name.startswith("nccl."):
            with open(os.path.join(folder, name), errors="replace") as file:
                found += [line for line in file if any(word in line for word in LOG_WORDS)]
    return "".join(found[:MAX_LOG_LINES])


def run_test(torch, test):
    """Run one test: fork its ranks, watch them, end them; returns its result."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ranks = []
        try:
            for number in range(len(test["devices"])):
                ranks.append(Rank(torch, test, number, folder))
            watch(ranks)
            known = {"gpus": test["gpus"], "p2p": test["p2p"], **outcome(ranks)}
        finally:
            for rank in ranks:
                rank.end()
        names = [rank.messages["library"] for rank in ranks if "library" in rank.messages]
        return known | ({"library": names[0]} if names else {}) | {"log": nccl_log(folder)}


def busy_devices():
    """The devices of running replicas, each by its index or UUID."""
    return {name for text in sys.argv[1:] for name in text.split(",") if name}


def print_result(what):
    print(MARK + json.dumps(what), flush=True)


def main():
    """Run every test of the task and print a line for each."""
    os.environ.update(TASK["environment"])
    held, idle = busy_devices(), []
    for group in TASK["groups"]:
        if held & (set(map(str, group["gpus"])) | set(group["devices"])):
            print_result({"gpus": group["gpus"], "busy": True})
        else:
            idle.append(group)
    if not idle:
        # Loading torch takes long, and all GPUs may be busy at every run.
        return print_result({"done": True})
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torch.distributed")
    except Exception as error:
        return print_result({"problem": "the engine's Python has no torch: %s" % error})
    results = TASK["known"]
    for group in idle:
        while (p2p := next_mode(group, results)) is not None:
            results.append(run_test(torch, dict(group, p2p=p2p)))
            print_result(results[-1])
    return print_result({"done": True})


if __name__ == "__main__":
    main()
