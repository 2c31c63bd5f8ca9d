"""The settings of the watchdog: of the fleet, and of each service."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from roles.host import DAY_S, StrictSettings, check_path

USER = "llm-watchdog"
# The system's own folders, and those that its unit (ProtectHome, PrivateTmp) does not see.
_SYSTEM = (
    *("bin", "boot", "dev", "etc", "home", "lib", "lib64", "proc", "root", "sbin", "sys", "tmp"),
    "usr",
)


def _folder(value: Any) -> str:
    path = check_path(value)
    if not path.is_absolute() or ".." in path.parts or any(c in str(path) for c in " %\"'\\$"):
        raise ValueError(f"{value!r:.60} is no plain folder; write a path such as /var/lib/metrics")
    if len(path.parts) < 3 or path.parts[1] in _SYSTEM or path.parts[:3] == ("/", "var", "tmp"):
        raise ValueError(
            f"{value!r:.60} is the system's, or hidden from the watchdog's unit; write a folder of "
            "its own, such as /var/lib/metrics"
        )
    return str(path)


class WatchdogSettings(StrictSettings):
    """The watchdog of each GPU host, which finds engines that hang and restarts them."""

    port: int = Field(
        default=7440,
        ge=1024,
        le=65535,
        description="port where balancers and other GPU hosts ask how the replicas are (an "
        "agent check); open to them alone",
    )
    metrics_dir: Annotated[str, BeforeValidator(_folder)] = Field(
        default="/var/lib/llm/metrics",
        description="folder on hosts of `llm.prom`, metrics in the node exporter's textfile form; "
        "it is made where it is missing, and must be the watchdog's to write",
    )
    allow_gpu_reset: bool = Field(
        default=False,
        description="reset the GPUs of a replica (NVIDIA) that restarts did not help, where no "
        "process uses them",
    )
    allow_reboot: bool = Field(
        default=False,
        description="reboot a host, at most once a day, where restarts did not help a replica and "
        "no other one there serves",
    )


class ServiceWatch(StrictSettings):
    """When a replica of a service leaves the rotation, and when it is restarted.

    An engine makes a step for each token of its requests, or part of a prompt.
    """

    enabled: bool = Field(default=True, description="whether its replicas are watched")
    stall_timeout_s: int = Field(
        default=8,
        ge=2,
        le=DAY_S,
        description="seconds without a step, while requests run or wait, after which a replica "
        "leaves the rotation; more where it compiles while it serves",
    )
    idle_probe_s: int = Field(
        default=5,
        ge=1,
        le=DAY_S,
        description="seconds after which a replica without requests is asked for a completion",
    )
    probe_timeout_s: int = Field(
        default=3, ge=1, le=600, description="seconds that this completion may take"
    )
    failed_probes: int = Field(
        default=2,
        ge=1,
        le=100,
        description="failed completions in a row after which it leaves the rotation",
    )
    confirm_timeout_s: int = Field(
        default=10,
        ge=1,
        le=600,
        description="seconds that a completion may take while a replica is out, or starts",
    )
    probe_tokens: int = Field(
        default=1,
        ge=1,
        le=64,
        description="tokens of such a completion; with 8 or more an answer of one repeated "
        "character is found, too",
    )
    restart_after_s: int = Field(
        default=35,
        ge=5,
        le=DAY_S,
        description="seconds since the last step or completion after which it is restarted",
    )
    restarts: int = Field(
        default=3,
        ge=1,
        le=6,
        description="restarts within the window, none of which lasted, that lead to the next step",
    )
    restart_window_s: int = Field(
        default=1800, ge=60, le=DAY_S, description="seconds of that window"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        idle_s = self.idle_probe_s + self.failed_probes * self.probe_timeout_s
        out_s = max(self.stall_timeout_s, idle_s)
        if self.restart_after_s <= out_s:
            raise ValueError(
                f"restart_after_s: after {self.restart_after_s} s a replica has not left the "
                f"rotation yet (that takes {out_s} s); set more than {out_s}"
            )
        least_s = self.restarts * self.restart_after_s
        if self.restart_window_s <= least_s:
            raise ValueError(
                f"restart_window_s: {self.restarts} restarts after {self.restart_after_s} s each "
                f"do not fall into {self.restart_window_s} s, so the next step never comes; set "
                f"more than {least_s}"
            )
        return self
