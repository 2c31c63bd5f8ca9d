"""A GPU host for the watchdog's own program: engines whose counters can stand, their units, and a
root helper that notes its commands."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from roles.watchdog import HostWatch, ServiceWatch, WatchdogSettings
from roles.watchdog.program import watchdog_program
from roles.watchdog.render import configuration

SLOTS = {"path": "/slots", "steps": [], "pending": [], "slots": True}
WATCH = {"path": "/metrics", "steps": ["s_total"], "pending": ["busy"], "keyed": True}
KEY = "engine-key"
# The times of a service in tenths of their defaults.
TIMES = {
    "stall_timeout_s": 0.8,
    "idle_probe_s": 0.5,
    "probe_timeout_s": 0.3,
    "failed_probes": 2,
    "confirm_timeout_s": 1,
    "restart_after_s": 3.5,
    "probe_tokens": 1,
    "restarts": 3,
    "restart_window_s": 180,
    "start_timeout_s": 180,
}


class Engine:
    """An engine that makes steps, or hangs; `pages` replaces its page of metrics."""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.steps, self.busy, self.page = 0, 0, b""
        self.questions = 0
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                engine.questions += 1
                engine.wait()
                if self.path == "/slots":
                    slots = [{"is_processing": n < engine.busy} for n in range(4)]
                    return self.send(200, engine.page or json.dumps(slots).encode())
                if self.headers["Authorization"] != f"Bearer {KEY}":
                    return self.send(401, b"")
                if not engine.hangs.is_set() and engine.busy:
                    engine.steps += 1
                text = f's_total{{a="b"}} {engine.steps}\nbusy {engine.busy}\n'
                self.send(200, engine.page or text.encode())

            def do_POST(self) -> None:
                engine.wait()
                engine.steps += 1
                message = {"message": {"content": "Hi"}}
                answer = {"choices": [message], "usage": {"completion_tokens": 1}}
                self.send(200, json.dumps(answer).encode())

            def send(self, status: int, text: bytes) -> None:
                # Whoever asks does not read more than it takes.
                with suppress(OSError):
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def wait(self) -> None:
        """Hang as a stopped process does: it takes connections and says nothing."""
        end = time.monotonic() + 30
        while self.hangs.is_set() and time.monotonic() < end:
            time.sleep(0.02)


class WatchedHost:
    """The folder of a host, its engines by replica, and the commands that the helper was given."""

    def __init__(
        self,
        folder: Path,
        replicas: tuple[str, ...],
        address: str,
        port: int,
        watch: dict[str, Any] = WATCH,
    ) -> None:
        self.watch = watch
        self.folder, self.address, self.port = folder, address, port
        self.engines = {name: Engine() for name in replicas}
        self.commands: list[tuple[str, str, float]] = []
        self.starts = dict.fromkeys(replicas, 1)
        self.answers: dict[str, dict[str, Any]] = {}
        (folder / "quarantine").mkdir()
        (folder / "lock").touch()
        self.write_manifest()
        self.write_units()
        # Prints what systemd would.
        (folder / "systemctl").write_text(f"#!/bin/sh\ncat {folder}/units\n")
        (folder / "systemctl").chmod(0o755)

    def write_manifest(self) -> None:
        entries = [
            {"name": name, "service": "q", "model": "m", "engine": "e", "gpus": [0],
             "watch": self.watch,
             "port": engine.server.server_port}
            for name, engine in self.engines.items()
        ]  # fmt: skip
        (self.folder / "manifest.json").write_text(json.dumps({"replicas": entries}))

    def write_units(self) -> None:
        blocks = [
            f"Id=llm-engine@{name}.service\nActiveState=active\nInvocationID=start{count}\n"
            for name, count in self.starts.items()
        ]
        new = self.folder / "units.new"
        new.write_text("\n".join(blocks))
        new.replace(self.folder / "units")

    def config(self, **more: Any) -> dict[str, Any]:
        watch = HostWatch(
            host="a",
            listen_address="127.0.0.1",
            settings=WatchdogSettings(),
            services={"q": ServiceWatch()},
            start_timeout_s=180,
        )
        own = {
            "sample_s": 0.2,
            "agent": {"address": self.address, "port": self.port},
            "services": {"q": TIMES},
            "manifest": f"{self.folder}/manifest.json",
            "locks": [f"{self.folder}/lock"],
            "helper": f"{self.folder}/helper.sock",
            "state": f"{self.folder}/state.json",
            "metrics": f"{self.folder}/llm.prom",
            "quarantine": f"{self.folder}/quarantine",
        }
        return {**configuration(watch), **own, **more}

    def help(self, server: socket.socket) -> None:
        """Answer the watchdog's commands, each a connection, and note them."""
        with suppress(OSError):
            while True:
                connection = server.accept()[0]
                with connection, connection.makefile("rw") as file:
                    command = json.loads(file.readline())
                    file.write(json.dumps(self.done(command)) + "\n")

    def done(self, command: dict[str, str]) -> dict[str, Any]:
        do, name = command["do"], command["replica"]
        if do == "key":
            return {"ok": True, "key": KEY}
        if do == "port":
            # The engine's own process is the same server here.
            return {"ok": True, "port": self.engines[name].server.server_port}
        self.commands.append((do, name, time.monotonic()))
        if do == "restart":
            self.starts[name] += 1
            self.write_units()
            self.engines[name].busy = 0
            self.engines[name].hangs.clear()
        return self.answers.get(do, {"ok": True})

    def done_to(self, name: str) -> list[str]:
        """What was done to a replica, each step once."""
        return list(dict.fromkeys(do for do, one, _ in self.commands if one == name))

    def first(self, do: str, name: str) -> float:
        """When something was first done to a replica."""
        return next(at for one, replica, at in self.commands if (one, replica) == (do, name))

    def ask(self, question: str) -> str:
        """What the agent port answers."""
        address = (self.address, self.port)
        with socket.create_connection(address, 2) as connection, connection.makefile("rw") as file:
            file.write(question + "\n")
            file.flush()
            return file.read().strip()

    def state(self, name: str) -> str:
        replicas = json.loads(self.ask("state"))["replicas"] if self.ask("state") != "{}" else []
        return next((one["state"] for one in replicas if one["name"] == name), "")

    def until(self, reached, timeout_s: float = 10) -> float:
        """Wait until something is so; returns how long that took."""
        begin = time.monotonic()
        while not reached():
            assert time.monotonic() < begin + timeout_s, (self.log(), self.commands)
            time.sleep(0.02)
        return time.monotonic() - begin

    def log(self) -> str:
        return (self.folder / "log").read_text()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def watched(
    folder: Path,
    *replicas: str,
    address: str = "127.0.0.1",
    port: int = 0,
    watch: dict[str, Any] = WATCH,
    **config: Any,
) -> Iterator[WatchedHost]:
    """A host whose watchdog runs, once all of its replicas serve."""
    folder.mkdir(exist_ok=True)
    host = WatchedHost(folder, replicas, address, port or free_port(), watch)
    with socket.socket(socket.AF_UNIX) as server, running(host, **config):
        server.bind(f"{folder}/helper.sock")
        server.listen(64)
        threading.Thread(target=host.help, args=(server,), daemon=True).start()
        host.until(lambda: all(host.state(name) == "serving" for name in replicas))
        yield host
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def running(of: WatchedHost, /, **config: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The watchdog's program, as it is on a host, until the end."""
    program, settings = of.folder / "watchdog.py", of.folder / "watchdog.json"
    program.write_text(watchdog_program())
    settings.write_text(json.dumps(of.config(**config)))
    path = f"{of.folder}:{os.environ['PATH']}"
    with open(of.folder / "log", "a") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", program, settings], env={"PATH": path}, stderr=log
        )
        try:
            of.until(lambda: answers(of))
            yield process
        finally:
            process.kill()
            process.wait()


def answers(host: WatchedHost) -> bool:
    with suppress(OSError):
        return bool(host.ask("state"))
    return False
