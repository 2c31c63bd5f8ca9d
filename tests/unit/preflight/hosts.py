"""Answers of hosts for tests: what the script prints, part by part, healthy unless said so."""

from dataclasses import replace
from typing import Any

from roles.driver import DriverSettings
from roles.engine import EngineSettings, engine_needs
from roles.hardware import Hardware, HostReport, parse_report
from roles.preflight import BalancerHost, HostNeeds
from roles.preflight.answers import Answers, parse_answers
from roles.preflight.case import Check
from roles.preflight.checks import checks
from roles.preflight.needs import EngineHost, Weights
from tests.unit.hardware.hosts import output as report_output

HUB = "/var/cache/llm/hub/hub/models--Qwen--Qwen2.5-7B-Instruct"
GIB = 2**30
WEIGHTS = Weights("Qwen/Qwen2.5-7B-Instruct", 15 * GIB, HUB)
LISTENER = 'LISTEN 0 511 0.0.0.0:{} 0.0.0.0:* users:(("{}",pid={},fd=6))'
OUR_UNIT = "0::/system.slice/system-llm\\x2dengine.slice/llm-engine@qwen-0.service"
URLS = ("index", "index-files", "hub-1", "hub-files", "distribution-1", "driver-repository")
ROOT_PARTS = ("root", "umask", "root_proxies", "listeners", "owners", "site", "hub", "weights")
ROOT_PARTS += ("packaging", "firewall_rules", "denials", "root_end")


def disk(folder: str, mount: str = "/", free_gib: float = 200, options: str = "rw") -> str:
    """One folder of the part `disks`."""
    free_kib = int(free_gib * 2**20)
    return "\n".join(
        (
            f"folder {folder}",
            f"at {folder}",
            f"space /dev/sda1 999999999 1 {free_kib} 50% {mount}",
            f"inodes /dev/sda1 1000000 1 900000 1% {mount}",
            f"options {options}",
        )
    )


FOLDERS = ("/", "/usr", "/var", "/boot", "/opt/llm/engines", "/var/cache/llm", "/tmp", HUB)


def disks(**changed: str) -> str:
    """The part `disks`; keys are folders with _ for /, values what `disk` gives."""
    own = {folder: disk(folder) for folder in FOLDERS}
    return "\n".join(
        (own | {key.replace("_", "/"): text for key, text in changed.items()}).values()
    )


def output(sudo: bool = True, **parts: str) -> list[str]:
    """The script's output; `sudo=False`: without what only root may see."""
    default = {
        "clock": "1700000000",
        "distribution": "http://deb.debian.org/debian/dists/bookworm/",
        "machine": "x86_64",
        "glibc": "glibc 2.39",
        "init": "systemd",
        "systemd": "systemd 255 (255.4-1ubuntu8)",
        "python": "there yes\nversion 3.12.3\nvenv yes",
        "missing_packages": "",
        "dpkg_audit": "",
        "engine": "",
        "wheelhouse": "",
        "disks": disks(),
        "memory": "MemTotal:       263850032 kB\nMemAvailable:   250000000 kB",
        "synchronised": "NTPSynchronized=yes\nNTP=yes",
        "selinux": "",
        "firewall": "firewalld inactive",
        "reboot": "",
        "reboot_required": "",
        "proxies": "",
        "listening": "asked",
        "root_errors": "",
        "root": "yes",
        "umask": "0022",
        "root_proxies": "",
        "listeners": "",
        "owners": "",
        "site": "",
        "hub": f"folder {HUB}",
        "weights": "",
        "packaging": "",
        "firewall_rules": "",
        "denials": "",
        "root_end": "",
        **{f"reach_{name.replace('-', '_')}": "curl 0 200" for name in URLS},
        "clock_end": "1700000002",
        "end": "",
    }
    lines = ["Welcome to the cluster"]
    for name, text in (default | parts).items():
        if sudo or name not in ROOT_PARTS:
            lines += ["", f"@@ {name.replace('_', '-')}", *text.split("\n")]
    return lines


def report(**parts: str) -> HostReport:
    """What the host says of its GPUs; two L40S with driver 580 unless said otherwise."""
    return parse_report(report_output(**parts))


def needs(**engine: Any) -> HostNeeds:
    """What a host of two replicas needs; `engine` replaces fields of the engines' part."""
    hardware = report().hardware
    assert hardware
    settings = EngineSettings()
    own = EngineHost(
        needs=engine_needs(settings),
        device="cuda",
        python="python3",
        folder="/opt/llm/engines/vllm-0.33.0",
        packages=("gcc", "python3-venv"),
        index_url=None,
        extra_index_urls=(),
        wheelhouse=None,
        weights=(WEIGHTS,),
        hub="https://huggingface.co",
        hub_token=False,
        ports={8001: "qwen-0", 8002: "qwen-1"},
        internal_ports=(29000, 29199),
        most_gpus=1,
        replicas=2,
    )
    return HostNeeds(
        expected=Hardware(hardware.gpus), driver=DriverSettings(), engine=replace(own, **engine)
    )


def balancer() -> HostNeeds:
    """What a balancer needs."""
    return HostNeeds(balancer=BalancerHost(443))


def answers(sudo: bool = True, **parts: str) -> Answers:
    """The answers, read."""
    return parse_answers(output(sudo, **parts))


def seen(
    host: HostReport | None = None, wanted: HostNeeds | None = None, sudo: bool = True, **parts: str
) -> dict[str, Check]:
    """The checks of a host by name."""
    found = checks(answers(sudo, **parts), host or report(), wanted or needs(), 0.0)
    return {check.name: check for check in found}


def told(
    host: HostReport | None = None, wanted: HostNeeds | None = None, sudo: bool = True, **parts: str
) -> dict[str, tuple[str, str, str]]:
    """What is not well: severity, what was seen and the remedy, by name."""
    return {
        name: (check.severity, check.seen, check.remedy)
        for name, check in seen(host, wanted, sudo, **parts).items()
        if check.severity in ("stop", "warning")
    }
