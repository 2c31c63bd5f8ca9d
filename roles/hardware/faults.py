"""The faults of a host's GPUs, with stable names and remedies.

Source of the remedies: NVIDIA's deployment guide and Xid catalogue, and public issue threads of
engines that failed in each of these ways.
"""

from dataclasses import dataclass
from typing import Literal

from roles.checks import Check

Severity = Literal["stop", "warning"]


@dataclass(frozen=True)
class Fault:
    """One fault: `kind` is a stable name; with severity `stop` nothing can be served.

    `absent` marks a GPU that does not answer at all: the others can serve if the inventory does not
    list it.
    """

    kind: str
    severity: Severity
    problem: str
    remedy: str
    gpu: int | None = None
    absent: bool = False

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}"


def fault_check(fault: Fault) -> Check:
    """A fault as a check; one with severity `stop` fails."""
    return Check(
        name=f"gpu:{fault.kind}",
        subject="GPUs" if fault.gpu is None else f"GPU {fault.gpu}",
        outcome="fail" if fault.severity == "stop" else "warn",
        evidence=fault.problem,
        remedy=fault.remedy,
    )
