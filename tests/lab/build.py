"""Everything that hosts are made of, built once and kept under the lab's state folder."""

from __future__ import annotations

import fcntl
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import base, drivers, gguf, keys, llama, model, wheelhouse
from .paths import STATE, others


@dataclass(frozen=True)
class Built:
    """The parts of a whole build."""

    base: Path
    repository: Path
    wheels: Path
    model: Path
    gguf: Path
    llama: Path
    drivers: Path

    def parts(self) -> list[Path]:
        """The folders of the parts."""
        made = [self.base.parent, self.repository, self.wheels, self.drivers]
        return [*made, self.model, self.gguf, self.llama]

    def forget_older(self) -> None:
        """Remove what older recipes left; only while no host is up, which may use it."""
        for path in self.parts():
            for old in others(path):
                shutil.rmtree(old)


def build() -> Built:
    """Build what is missing; a second process waits for the first."""
    base.install_needed()
    keys.make()
    with (STATE / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The compiler works while the others wait for the network.
        with ThreadPoolExecutor() as pool:
            programs, wheels = pool.submit(llama.llama), pool.submit(wheelhouse.wheelhouse)
            root = base.base() / "root"
            packages = base.repository(root)
            return Built(
                root,
                packages,
                wheels.result(),
                model.model(),
                gguf.gguf(),
                programs.result(),
                drivers.repositories(),
            )
