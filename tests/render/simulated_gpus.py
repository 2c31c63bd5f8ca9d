"""The lab's nvidia-smi and amd-smi on this machine, each in a folder of its own."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
PROGRAM = TESTS / "lab/gpu/nvidia_smi.py"
# What the profile of an L40S says otherwise than an H100, by nvidia-smi's own output of one.
H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "memory.total [MiB]": "81559 MiB",
    "memory.reserved [MiB]": "479 MiB",
    "power.limit [W]": "700.00 W",
    "power.default_limit [W]": "700.00 W",
    "power.min_limit [W]": "200.00 W",
    "power.max_limit [W]": "700.00 W",
    "mig.mode.current": "Disabled",
    "mig.mode.pending": "Disabled",
}


class Card:
    """Two cards of one host; `boot` takes from them what a reboot takes."""

    def __init__(self, folder: Path, fields: dict[str, str] | None = None, **profile: Any) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        made = json.loads((TESTS / "lab/profiles/l40s-2x.json").read_text()) | profile
        made["fields"] |= fields or {}
        (folder / "profile.json").write_text(json.dumps(made))
        self.used_by()
        text = PROGRAM.read_text()
        for there, here in (
            ("/usr/lib/lab-gpu", folder),
            ("/run/lab-gpu.sock", folder / "socket"),
            ("/run/lab-gpu-set.json", folder / "set.json"),
            ("/var/lib/lab-gpu-kept.json", folder / "kept.json"),
            ("#!/usr/bin/python3", f"#!{sys.executable} -SE"),
        ):
            assert there in text
            text = text.replace(there, str(here))
        (self.bin / "nvidia-smi").write_text(text)
        (self.bin / "nvidia-smi").chmod(0o755)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(folder / "socket"))
        self.server.listen()
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        """What the simulated driver says of an idle host."""
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection:
                connection.recv(64)
                connection.sendall(b'{"processes": [], "utilization": [0, 0]}')

    def used_by(self, *processes: tuple[int, int, str]) -> None:
        """Let processes (GPU, pid, name) hold memory."""
        held = [{"gpu": gpu, "pid": pid, "name": name, "mib": 900} for gpu, pid, name in processes]
        (self.folder / "faults.json").write_text(json.dumps({"foreign": held}))

    def boot(self) -> None:
        (self.folder / "set.json").unlink(missing_ok=True)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """A shell script with the simulated tool found first."""
        path = f"{self.bin}:{os.environ['PATH']}"
        return subprocess.run(
            ["dash", "-c", script],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def smi(self, arguments: str) -> str:
        return self.run(f"nvidia-smi {arguments}").stdout

    def slice(self, profiles: str) -> None:
        """GPU 0 in slices, as somebody made them by hand."""
        self.run(f"nvidia-smi -i 0 -mig 1; nvidia-smi mig -i 0 -cgi {profiles} -C")


class AmdHost:
    """A host with cards of AMD that amdgpu drives; `holds` and `busy` are what its driver says."""

    def __init__(self, folder: Path, profile: str = "mi300x-2x") -> None:
        self.folder, self.program = folder, folder / "amd_smi.py"
        self.holds: list[dict[str, Any]] = []
        made = json.loads((TESTS / f"lab/profiles/{profile}.json").read_text())
        self.busy = [0] * len(made["amd"])
        (folder / "profile.json").write_text(json.dumps(made))
        (folder / "faults.json").write_text("{}")
        (folder / "loaded.json").write_text(json.dumps({"amdgpu": "6.16.13"}))
        for name in ("amd_smi.py", "kernel.py"):
            text = (TESTS / "lab/gpu" / name).read_text()
            for there in ("/usr/lib/lab-gpu", "/run/lab-kernel"):
                text = text.replace(f'"{there}"', f'"{folder}"')
            text = text.replace("/run/lab-gpu.sock", str(folder / "socket"))
            (folder / name).write_text(text)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(folder / "socket"))
        self.server.listen()
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection:
                wanted = connection.recv(64).decode()
                busy = self.busy if wanted == "all" else [0] * len(self.busy)
                output = {"processes": self.holds, "utilization": busy}
                connection.sendall(json.dumps(output).encode())

    def smi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self.program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)
