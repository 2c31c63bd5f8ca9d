"""Answers of hosts for tests: what the script prints, part by part, healthy unless said so."""

from dataclasses import replace
from typing import Any

from roles.checks import Check
from roles.driver import PART as DRIVER
from roles.driver import DriverSettings
from roles.engine import VllmSettings, engine_needs
from roles.hardware import Hardware, HardwareReport, parse_report
from roles.host import SUDO
from roles.host.question import parse_answers as parse_question
from roles.preflight import BalancerHost, HostNeeds
from roles.preflight.answers import PreflightAnswers, parse_preflight
from roles.preflight.checks import checks
from roles.preflight.needs import EngineHost, Weights
from roles.preflight.questions import ROOT, USER
from tests.unit.hardware.hosts import sections as report_sections

HUB = "/var/cache/llm/hub/hub/models--Qwen--Qwen2.5-7B-Instruct"
GIB = 2**30
MODEL = "Qwen/Qwen2.5-7B-Instruct"
PAGE = f"{MODEL}/resolve/main/config.json"
WEIGHTS = Weights(MODEL, 15 * GIB, HUB, "https://huggingface.co", hub_page=PAGE)
LISTENER = 'LISTEN 0 511 0.0.0.0:{} 0.0.0.0:* users:(("{}",pid={},fd=6))'
OUR_UNIT = "0::/system.slice/system-llm\\x2dengine.slice/llm-engine@qwen-0.service"
URLS = ("index", "index-files", "hub-1", "hub-files", "distribution-1", "driver-repository")
ROOT_SECTIONS = ("umask", "root_proxies", "listeners", "owners", "sites", "hub", "weights")
ROOT_SECTIONS += ("deploys", "packaging", "firewall_rules", "denials")
SUDO_SECTIONS = {"root_errors": "errors", "hung_root": "hung"}
BARE: dict[str, Any] = {
    "query": "",
    "lspci": "",
    "nvidia_loaded": "",
    "nvidia_installed": "",
    "pci": "0000:01:00.0 0x030200 0x10de 0x26b9 numa=0 driver= width=16/16\n"
    "0000:02:00.0 0x030200 0x10de 0x26b9 numa=0 driver= width=16/16",
}
# What the hardware's answer says of them.
REPORTED = ("machine", "memory", "dpkg_audit", "reboot_required")


def disk(folder: str, mount: str = "/", free_gib: float = 200, options: str = "rw") -> str:
    """One folder of the part `disks`."""
    free_kib = int(free_gib * 2**20)
    return "\n".join(
        (
            f"folder {folder}",
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


def output(sudo: bool = True, **sections: str) -> list[str]:
    """What a host answers; `sudo=False`: without what only root may see."""
    user = {
        "clock": "1700000000",
        "distribution": "http://deb.debian.org/debian/dists/bookworm/",
        "glibc": "glibc 2.39",
        "init": "systemd",
        "systemd": "systemd 255 (255.4-1ubuntu8)",
        "python": "python python3\nversion 3.12.3\nvenv yes",
        "missing_packages": "",
        "engine": "",
        "wheelhouse": "",
        "disks": disks(),
        "synchronised": "NTPSynchronized=yes",
        "given_ports": "32768\t60999",
        "selinux": "",
        "firewall": "firewalld inactive",
        "proxies": "",
        "listening": "asked",
        **{f"reach_{name.replace('-', '_')}": "curl 0 200" for name in URLS},
        "clock_end": "1700000002",
    }
    root = dict.fromkeys(ROOT_SECTIONS, "") | {"umask": "0022", "hub": f"folder {HUB}"}
    own = {name: text for name, text in sections.items() if name in ROOT_SECTIONS}
    answer = {SUDO_SECTIONS[name]: text for name, text in sections.items() if name in SUDO_SECTIONS}
    driver = {"own_key": sections.get("own_key", "")}
    user |= {
        name: text
        for name, text in sections.items()
        if name not in (*own, *SUDO_SECTIONS, *driver, *REPORTED)
    }
    lines = ["Welcome to the cluster", *_part(USER, user)]
    if sudo:
        lines += [*_part(ROOT, root | own), *_part(DRIVER.name, driver)]
    return [*lines, *_part(SUDO, {"errors": ""} | answer)]


def _part(name: str, sections: dict[str, str]) -> list[str]:
    labelled = [*sections.items(), ("end", "")]
    lines = [("", f"@@ {label.replace('_', '-')}", *text.split("\n")) for label, text in labelled]
    return ["", f"@@@ {name}", *(line for section in lines for line in section)]


BALANCER_PACKAGES = ("nginx", "openssl", "python3", "procps")


def balancer_host(ports: dict[int, str]) -> BalancerHost:
    """What nginx needs of its host."""
    sites = {"nginx": "/etc/nginx/conf.d/llm.conf"}
    return BalancerHost(ports, BALANCER_PACKAGES, "nginx", sites, "httpd_can_network_connect")


def report(**parts: str) -> HardwareReport:
    """What the host says of its GPUs; two L40S with driver 580 unless said otherwise."""
    return parse_report(report_sections(**parts))


def needs(**engine: Any) -> HostNeeds:
    """What a host of two replicas needs; `engine` replaces fields of the engines' part, `hub` that
    of all its weights."""
    hardware = report().hardware
    assert hardware
    settings = VllmSettings()
    own = EngineHost(
        engines=(engine_needs(settings),),
        folders=("/opt/llm/engines/vllm-0.33.0",),
        packages=("gcc", "python3-venv"),
        weights=(WEIGHTS,),
        ports={8001: "qwen-0", 8002: "qwen-1"},
        internal_ports=(29000, 29199),
        most_gpus=1,
        replicas=2,
    )
    sources = {"python", "index_url", "extra_index_urls", "wheelhouse"} & engine.keys()
    index = replace(own.needs.package_indexes[0], **{name: engine.pop(name) for name in sources})
    one = replace(engine.pop("needs", own.needs), package_indexes=(index,))
    own = replace(own, engines=(one,))
    hub = {"hub": engine.pop("hub")} if "hub" in engine else {}
    own = replace(own, **engine)
    own = replace(own, weights=tuple(replace(one, **hub) for one in own.weights))
    return HostNeeds(expected=Hardware(hardware.gpus), driver=DriverSettings(), engine=own)


def balancer() -> HostNeeds:
    """What a balancer needs."""
    return HostNeeds(balancer=balancer_host({443: "balancer.port"}))


def answers(sudo: bool = True, **parts: str) -> PreflightAnswers:
    """The answers, read."""
    return parse_preflight(parse_question(output(sudo, **parts)))


def all_checks(
    host: HardwareReport | None = None,
    wanted: HostNeeds | None = None,
    sudo: bool = True,
    **parts: str,
) -> dict[str, Check]:
    """The checks of a host by name."""
    reported = {name: text for name, text in parts.items() if name in REPORTED}
    found = checks(answers(sudo, **parts), host or report(**reported), wanted or needs(), 0.0)
    return {check.name: check for check in found}


def not_passed(
    host: HardwareReport | None = None,
    wanted: HostNeeds | None = None,
    sudo: bool = True,
    **parts: str,
) -> dict[str, tuple[str, str, str]]:
    """What is not well: outcome, what was seen and the remedy, by name."""
    return {
        name: (check.outcome, check.evidence, check.remedy)
        for name, check in all_checks(host, wanted, sudo, **parts).items()
        if check.outcome in ("fail", "warn")
    }


def two_builds(**other: str | None) -> HostNeeds:
    """A host with two builds of vLLM; `other` are the second's sources."""
    old = engine_needs(VllmSettings.model_validate({"requirement": "vllm==0.19.1"} | other))
    wanted = needs(wheelhouse="/srv/wheels")
    assert wanted.engine
    return replace(wanted, engine=replace(wanted.engine, engines=(*wanted.engine.engines, old)))


def driver(**settings: object) -> HostNeeds:
    return replace(needs(), driver=DriverSettings.model_validate(settings))


def assert_only(
    found: dict[str, tuple[str, str, str]], name: str, outcome: str, mentions: tuple[str, ...]
) -> None:
    """See that this check alone is not well, and that evidence and remedy name what they must."""
    assert set(found) == {name}
    actual, evidence, remedy = found[name]
    assert (actual, bool(evidence), bool(remedy)) == (outcome, True, True)
    assert [one for one in mentions if one not in f"{evidence}\n{remedy}"] == []
