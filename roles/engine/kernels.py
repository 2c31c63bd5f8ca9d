"""The cards on which something of an engine runs, by compute capability and AMD's gfx names."""

import math
from dataclasses import dataclass

from roles.engine.needs import Version
from roles.engine.params import GpuMemory

EVERY_AMD = ("gfx90a", "gfx942", "gfx950", "gfx11", "gfx12")


@dataclass(frozen=True)
class Row:
    """The cards on which something runs.

    `least` is the minimum compute capability of NVIDIA's cards, `below` the first that is too new.
    `amd` are beginnings of AMD's gfx names, empty where none runs it. `since` is the first version
    of the engine for which this row holds.
    """

    subject: str
    name: str
    least: float
    below: float = math.inf
    amd: tuple[str, ...] = EVERY_AMD
    since: Version = (0, 0)
    source: str = ""

    def runs_on(self, gpu: GpuMemory) -> bool:
        """Whether a card runs it; an unknown card does."""
        if gpu.gfx is not None:
            return gpu.gfx.startswith(self.amd)
        if gpu.compute_capability is None:
            return True
        return self.least <= gpu.compute_capability < self.below

    def cards(self, gpu: GpuMemory) -> str:
        """The cards of the same vendor that run it, in words."""
        if gpu.gfx is not None:
            return f"AMD's {', '.join(self.amd)}" if self.amd else "no AMD GPU"
        if self.least == math.inf:
            return "no NVIDIA GPU"
        until = "" if self.below == math.inf else f" and below {self.below:.1f}"
        return f"compute capability {self.least:.1f} or more{until}"
