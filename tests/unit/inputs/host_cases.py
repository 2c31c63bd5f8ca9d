"""Wrong hosts, groups and data beside our key: a change, and what the message must name."""

from collections.abc import Callable
from typing import Any

from tests.unit.inputs.inventories import GONE

Change = tuple[str, Any] | Callable[[dict[str, Any]], Any]
Row = tuple[Change | tuple[Change, ...], str, *tuple[str, ...]]
LLM, HOST, NO_HOST = "did you mean llm?", "hosts[gpu-1]", "is no host"


def empty(names: dict[str, Any]) -> None:
    """No host in any group."""
    names["gpu_hosts"], names["balancers"], names["all"][0] = [], [], []


def without_balancers(names: dict[str, Any]) -> None:
    """The group of balancers is empty."""
    names["balancers"], names["all"][0] = [], ["gpu-1", "gpu-2"]


def without_second(names: dict[str, Any]) -> None:
    """The second host with GPUs is not there."""
    names["gpu_hosts"].pop()
    names["all"][0] = ["gpu-1"]


def host(value: Any) -> Callable[[dict[str, Any]], Any]:
    """Another thing in place of the first host."""
    return lambda names: names["gpu_hosts"].__setitem__(0, value)


def second(key: str) -> Callable[[dict[str, Any]], Any]:
    """A second mapping of settings in `all`, under a misspelt key."""
    return lambda names: names["all"][1].__setitem__(key, {"services": []})


class Unprintable:
    """An object whose repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError


HUGE = 10**5000
# pyinfra's own data of a host: a key, a wrong value, and words of the message.
SSH: tuple[tuple[str, Any, str], ...] = (
    ("ssh_hostname", "-x", "no name or address"),
    ("ssh_hostname", "a b", "no name or address"),
    ("ssh_user", "x\n", "is no text"),
    ("ssh_user", "root; id", "is no name of a user"),
    ("ssh_user", "a b", "is no name of a user"),
    ("ssh_user", "-oProxyCommand=x", "is no name of a user"),
    ("ssh_key", "a\0b", "is no text"),
    ("ssh_password", 5, "it is no text"),
    ("ssh_key_password", "", "it is no text"),
    ("ssh_allow_agent", "no", "True or False"),
    ("ssh_look_for_keys", 1, "True or False"),
    ("ssh_forward_agent", None, "True or False"),
    ("ssh_connect_retries", "3", "from 0 to 100"),
    ("ssh_connect_retries", -1, "from 0 to 100"),
    ("ssh_connect_retries", 10**9, "from 0 to 100"),
    ("ssh_connect_retries", True, "from 0 to 100"),
    ("ssh_connect_retry_min_delay", "x", "seconds from 0"),
    ("ssh_connect_retry_max_delay", -5, "seconds from 0"),
    ("ssh_connect_retry_max_delay", float("nan"), "seconds from 0"),
    ("ssh_connect_retry_max_delay", float("inf"), "seconds from 0"),
    ("ssh_file_transfer_protocol", "ftp", "sftp, scp"),
    ("ssh_paramiko_connect_kwargs", "x", "is no mapping"),
    ("ssh_paramiko_connect_kwargs", {"timeouts": 5}, "did you mean timeout?"),
    ("ssh_paramiko_connect_kwargs", {5: 5}, "unknown name 5"),
    ("ssh_port", HUGE, "from 1 to 65535"),
    ("ssh_port", 0, "from 1 to 65535"),
    ("_sudo", "yes", "True or False"),
    ("_sudo_user", "", "is no text"),
    ("_timeout", "never", "whole seconds"),
    ("_shell_executable", 5, "is no text"),
    ("_retries", -1, "from 0 to 100"),
    ("_parallel", -1, "from 0 on"),
    ("_env", "A=b", "is no mapping"),
)
MISSPELT = (
    ("SSH_USER", "ssh_user"),
    ("Ssh_key", "ssh_key"),
    ("ssh-user", "ssh_user"),
    ("_sudoo", "_sudo"),
    ("_SUDO_USER", "_sudo_user"),
)


KEYS: tuple[Row, ...] = (
    *((second(key), "all", LLM) for key in ("LLM", "Llm", "lllm", "llms", "lm", "lml", "vllm")),
    *((second(key), "all", LLM) for key in ("llm ", "_llm", "llm_settings", "llm-config", "1lm")),
    *((("gpu1!" + key, {}), HOST, LLM) for key in ("LLM", "lllm", "llm_", "llm.gpus", "ll")),
    (("lb1.lmm", {}), "hosts[lb-1]", LLM),
    *(
        (("gpu1!" + key, value), HOST, f"'{key}' stands beside llm", "put it into llm")
        for key, value in (("drained", True), ("gpus", "1x NVIDIA L4"), ("retired", True))
    ),
    (("lb1.drained", True), "hosts[lb-1]", "stands beside llm"),
    (lambda names: names["all"][1].__setitem__("services", []), "all", "stands beside llm"),
    (lambda names: names["all"][1].__setitem__("balancer", {}), "all", "stands beside llm"),
    (("gpu1.ssh_hostnam", "10.0.0.1"), HOST, "did you mean ssh_hostname?"),
    (("gpu1.sshuser", "a"), HOST, "did you mean ssh_user?"),
    (("gpu1.sssh_user", "a"), HOST, "did you mean ssh_user?"),
    (("gpu1.ssh_hostname", ""), f"{HOST}.ssh_hostname", "is no text"),
    (("gpu1.ssh_hostname", 10), f"{HOST}.ssh_hostname", "is no text"),
    (("gpu1.ssh_user", None), f"{HOST}.ssh_user", "is no text"),
    (("gpu1.ssh_key", ["a"]), f"{HOST}.ssh_key", "is no text"),
    (
        ("gpu1.ssh_strict_host_key_checking", "maybe"),
        f"{HOST}.ssh_strict_host_key_checking",
        "accept-new",
    ),
    *((("gpu1." + key, value), f"{HOST}.{key}", words) for key, value, words in SSH),
    *((("gpu1!" + key, 1), HOST, f"did you mean {meant}?") for key, meant in MISSPELT),
    (
        lambda names: names["all"][1].__setitem__("ssh_connect_retries", -1),
        "all.ssh_connect_retries",
    ),
    (("file.llm", {"services": []}), "llm", "stands alone; put it into all"),
    (("file.LLM", {}), "LLM", "stands alone; put it into all"),
    (("gpu1.ssh_port", "22"), f"{HOST}.ssh_port", "from 1 to 65535"),
    (("gpu1.ssh_port", True), f"{HOST}.ssh_port", "from 1 to 65535"),
    (("gpu1.ssh_port", 70000), f"{HOST}.ssh_port", "from 1 to 65535"),
    (
        ("gpu1.ssh_paramiko_connect_kwargs", {"timeout": "5"}),
        f"{HOST}.ssh_paramiko_connect_kwargs.timeout",
        "seconds",
    ),
    (("llm.launch", HUGE), "launch", "a value of type int"),
    (("service.name", Unprintable()), "services[0].name", "a value of type Unprintable"),
    (("gpu1llm.gpus", Unprintable()), f"{HOST}.gpus", "a value of type Unprintable"),
    (("file.balancers", Unprintable()), "balancers", "a value of type Unprintable"),
    (host(HUGE), "gpu_hosts[0]", NO_HOST),
    (("gpu1.llm", None), f"{HOST}.llm", "must be a mapping"),
    (("gpu1.llm", ["gpus"]), f"{HOST}.llm", "must be a mapping"),
    (("lb1.llm", "x"), "hosts[lb-1].llm", "must be a mapping"),
    (lambda names: names["all"][1].__setitem__("llm", []), "all.llm", "must be a mapping"),
    (lambda names: names["gpu_hosts"][0][1].__setitem__(5, 1), HOST, "the key 5 is no text"),
    (lambda names: names["all"].__setitem__(1, None), "all", "write a mapping"),
    (lambda names: names["all"].__setitem__(1, "llm"), "all", "write a mapping"),
    (lambda names: names["all"].__setitem__(1, [("llm", {})]), "all", "write a mapping"),
    (lambda names: names["all"].pop(), "all", "write ([hosts], {data})"),
    (lambda names: names["all"].append({}), "all", "write ([hosts], {data})"),
    (lambda names: names["all"].__setitem__(0, "gpu-1"), "all", "write ([hosts], {data})"),
    (lambda names: names["all"].__setitem__(0, None), "all", "write ([hosts], {data})"),
    (("file.all", {"llm": {}}), "all", "write a list"),
    (("file.all", "gpu-1"), "all", "write a list"),
    (("gpu1llm.gpu", "1x NVIDIA L4"), f"{HOST}.gpu", "did you mean gpus?"),
    (("gpu1llm.adress", "10.0.0.1"), f"{HOST}.adress", "did you mean address?"),
    (("gpu1llm.engine", {}), f"{HOST}.engine", "move it under engines.vllm"),
    (("gpu1llm.services", []), f"{HOST}.services", "known keys"),
)

GROUPS: tuple[Row, ...] = (
    (lambda names: names.pop("all"), "all", "'services'"),
    (lambda names: names["all"].__setitem__(1, {}), "all", "'services'"),
    (lambda names: names["all"].__setitem__(1, {"llm": {}}), "all", "'services'"),
    (empty, "hosts", "there is none", "gpu_hosts"),
    (("file.more", ["gpu-1", "gpu-9"]), "more[1]", "'gpu-9' is not in all", "add it there"),
    (("file.gpu_host", (["x"], {})), "gpu_host[0]", "'x' is not in all"),
    (without_balancers, "balancers", "add one"),
    (("file.gpu_hosts", None), "gpu_hosts", "write a list"),
    (("file.gpu_hosts", {"gpu-1": {}}), "gpu_hosts", "write a list"),
    (("file.gpu_hosts", "gpu-1"), "gpu_hosts", "write a list"),
    (("file.balancers", 5), "balancers", "write a list"),
    (("file.gpu_hosts", ("gpu-1", {"llm": {}})), "gpu_hosts", "write ([hosts], {data})"),
    (("file.gpu_hosts", (["gpu-1"],)), "gpu_hosts", "write ([hosts], {data})"),
    (("file.gpu_hosts", ()), "gpu_hosts", "write ([hosts], {data})"),
    (("file.gpu_hosts", (["gpu-1"], {}, {})), "gpu_hosts", "write ([hosts], {data})"),
    (("file.gpu_hosts", (["gpu-1"], ["llm"])), "gpu_hosts", "write a mapping"),
    (("file.gpu_hosts", (["gpu-1"], {"llm": 5})), "gpu_hosts.llm", "must be a mapping"),
    (("file.gpu_hosts", (["gpu-1"], {"lllm": {}})), "gpu_hosts", LLM),
    (("file.VERSIONS", (1, 2)), "VERSIONS", "begin its name with _"),
    (("file.pair", ()), "pair", "begin its name with _"),
    (host(("gpu-1",)), "gpu_hosts[0]", NO_HOST),
    (host(("gpu-1", {}, {})), "gpu_hosts[0]", NO_HOST),
    (host(()), "gpu_hosts[0]", NO_HOST),
    (host((5, {})), "gpu_hosts[0]", NO_HOST),
    (host(5), "gpu_hosts[0]", NO_HOST),
    (host(None), "gpu_hosts[0]", NO_HOST),
    (host({"gpu-1": {}}), "gpu_hosts[0]", NO_HOST),
    (host(""), "gpu_hosts[0]", NO_HOST),
    (host(("gpu-1", None)), HOST, "write a mapping"),
    (host(("gpu-1", "10.0.0.11")), HOST, "write a mapping"),
    (host(("gpu-1", [])), HOST, "write a mapping"),
    (host("gpu-2"), "gpu_hosts", "'gpu-2' is listed 2 times"),
    (
        lambda names: names.__setitem__("gpu_host", names.pop("gpu_hosts")),
        "gpu_host",
        "did you mean gpu_hosts?",
    ),
    (
        lambda names: names.__setitem__("balancer", names.pop("balancers")),
        "balancer",
        "did you mean balancers?",
    ),
    (lambda names: names.__setitem__("ALL", names.pop("all")), "ALL", "did you mean all?"),
    (lambda names: names["all"][0].append("gpu-9"), "hosts[gpu-9]", "is in no role"),
)

ADDRESSES: tuple[Row, ...] = (
    *(
        (("gpu1.ssh_hostname", address), f"{HOST}.address", why)
        for address, why in (
            ("0.0.0.0", "stands for any address"),
            ("0.1.2.3", "stands for any address"),
            ("255.255.255.255", "broadcast"),
            ("224.0.0.1", "multicast"),
            ("239.1.2.3", "multicast"),
            ("250.1.2.3", "reserved"),
            ("::", "stands for any address"),
            ("ff02::1", "multicast"),
            ("fe80::1%eth0", "zone"),
            ("2001:db8::1%2", "zone"),
            ("fe80::1", "of one link"),
            ("gpu-1.example.com", "is no IP address"),
            ("10.0.0", "is no IP address"),
            ("10.0.0.11:22", "is no IP address"),
            ("10.0.0.999", "is no IP address"),
        )
    ),
    (("gpu2llm.address", "10.0.0.11"), "hosts[gpu-2].address", "give each host its own"),
    (("gpu1llm.address", "127.0.0.1"), f"{HOST}.address", "by which the other hosts reach it"),
    (("lb1.ssh_hostname", "::1"), "hosts[lb-1].address", "by which the other hosts reach it"),
    (("gpu1llm.address", "::ffff:10.0.0.1"), f"{HOST}.address", "reserved"),
    (("gpu1llm.address", True), f"{HOST}.address", "write it as text"),
    (("gpu1llm.address", 167772171), f"{HOST}.address", "write it as text"),
    (("gpu1llm.address", "0.0.0.0"), f"{HOST}.address", "stands for any address"),
    (("gpu1llm.address", "fe80::2%3"), f"{HOST}.address", "zone"),
    (("gpu1llm.address", ""), f"{HOST}.address", "is no IP address"),
    (("lb1llm.address", "ff00::1"), "hosts[lb-1].address", "multicast"),
)


def card(**own: Any) -> Change:
    """One card of the first host, in the long form."""
    return "gpu1llm.gpus", [{"name": "NVIDIA L40S", **own}]


CARD = f"{HOST}.gpus[0]"
HARDWARE: tuple[Row, ...] = (
    (
        ("gpu1llm.gpus", [{"name": "NVIDIA L40S", "memory_mib": 4_000_000}]),
        f"{HOST}.gpus[0].memory_mib",
        "49152",
    ),
    (
        ("gpu1llm.gpus", [{"name": "NVIDIA L40S", "memory_mib": 48}]),
        f"{HOST}.gpus[0].memory_mib",
        "48 GiB is 49152",
    ),
    (
        ("gpu1llm.gpus", [{"name": "NVIDIA L40S", "memory_mib": True}]),
        f"{HOST}.gpus[0].memory_mib",
        "no number",
    ),
    (
        ("gpu1llm.gpus", [{"name": "NVIDIA L40S", "memory_mib": "46068"}]),
        f"{HOST}.gpus[0].memory_mib",
        "without quotes",
    ),
    (
        ("gpu1llm.gpus", [{"name": "NVIDIA L40S", "memory_mib": -5}]),
        f"{HOST}.gpus[0].memory_mib",
        "no memory",
    ),
    (
        ("gpu1llm.gpus", [{"name": "NVIDIA L40S", "count": True}]),
        f"{HOST}.gpus[0].count",
        "no number",
    ),
    (card(count=5000), f"{CARD}.count", "64"),
    (
        ("gpu1llm.gpus", [{"name": "NVIDIA L40S", "counts": 2}]),
        f"{HOST}.gpus[0].counts",
        "did you mean count?",
    ),
    (("gpu1llm.gpus", [{"count": 2}]), f"{HOST}.gpus[0].name", "is missing"),
    (("gpu1llm.gpus", ["NVIDIA L40S"]), f"{HOST}.gpus[0]", "a mapping"),
    (card(memory_mib=1_000_000), f"{HOST}.gpus", "memory_mib", "46068"),
    (card(memory_mib=1024), f"{HOST}.gpus", "memory_mib", "46068"),
    (("gpu1llm.gpus", {"name": "NVIDIA L40S"}), f"{HOST}.gpus", "text or a list"),
    (("gpu1llm.gpus", []), f"{HOST}.gpus", "name at least one"),
    (("gpu1llm.gpus", 2), f"{HOST}.gpus", "not 2"),
    (("gpu1llm.gpus", ""), f"{HOST}.gpus", "2x NVIDIA L40S"),
    (("gpu1llm.gpus", "NVIDIA L40S"), f"{HOST}.gpus", "2x NVIDIA L40S"),
    (("gpu1llm.gpus", "0x NVIDIA L40S"), f"{HOST}.gpus", "2x NVIDIA L40S"),
    (("gpu1llm.gpus", "99x NVIDIA L40S"), f"{HOST}.gpus", "at most 64"),
    (("gpu1llm.gpus", "2x NVIDIA L41S"), f"{HOST}.gpus", "did you mean"),
    (("gpu1llm.gpus", "2x NVIDIA\nL40S"), f"{HOST}.gpus", "L40S"),
    (("gpu1llm.gpus", GONE), f"{HOST}.gpus", "deploys/discover.py"),
    (("gpu1llm.links", "nvlnk"), f"{HOST}.links", "nvlink"),
    (("gpu1llm.links", ""), f"{HOST}.links", "nvlink"),
    (("gpu1llm.links", "GPU0 GPU1\nGPU0 X"), f"{HOST}.links", "nvlink"),
    (("gpu1llm.links", True), f"{HOST}.links", "text in quotes"),
    (("gpu1llm.price_per_month", float("inf")), f"{HOST}.price_per_month", "finite"),
    (("gpu1llm.price_per_month", -1), f"{HOST}.price_per_month", "0"),
    (("gpu1llm.price_per_month", "900"), f"{HOST}.price_per_month", "without quotes"),
    (("gpu1llm.price_per_month", True), f"{HOST}.price_per_month", "no number"),
    (("gpu1llm.network_gbit_s", 10**9), f"{HOST}.network_gbit_s", "100000"),
    (("gpu1llm.network_gbit_s", 0), f"{HOST}.network_gbit_s", "0.1"),
    (("gpu1llm.drained", "yes"), f"{HOST}.drained", "True or False"),
    (("gpu1llm.drained", 1), f"{HOST}.drained", "True or False"),
    (("gpu1llm.retired", "False"), f"{HOST}.retired", "True or False"),
    (("gpu1llm.ports", [80, 81]), f"{HOST}.ports[0]", "outside 1024-65535"),
    (("gpu1llm.ports", [70000, 8002]), f"{HOST}.ports[0]", "outside 1024-65535"),
    (("gpu1llm.ports", ["8001", "8002"]), f"{HOST}.ports[0]", "without quotes"),
    (("gpu1llm.ports", [True, 8002]), f"{HOST}.ports[0]", "no number"),
    (("gpu1llm.ports", 8001), f"{HOST}.ports", "a list"),
    (("gpu1llm.ports", [8001]), f"{HOST}.ports", "name one for each"),
    (("gpu1llm.ports", [8001, 8001]), f"{HOST}.ports", "would both listen on 8001"),
    (("gpu1llm.pinned_gpus", {"q": [0, 0]}), f"{HOST}.pinned_gpus", "twice; remove one"),
    (("gpu1llm.pinned_gpus", {"q": [7]}), f"{HOST}.pinned_gpus", "no GPU 7"),
    (("gpu1llm.pinned_gpus", {"q": [True]}), f"{HOST}.pinned_gpus.q[0]", "no number"),
    (("gpu1llm.pinned_gpus", {"q": [-1]}), f"{HOST}.pinned_gpus.q[0]", "0"),
    (("gpu1llm.pinned_gpus", {"x": [0]}), f"{HOST}.pinned_gpus", "is no service"),
    (("gpu1llm.pinned_gpus", [0]), f"{HOST}.pinned_gpus", "a mapping"),
    *(
        (("lb1llm." + name, value), f"hosts[lb-1].{name}", "put it there")
        for name, value in (
            ("gpus", "1x NVIDIA L40S"),
            ("links", "pcie"),
            ("ports", [8001]),
            ("drained", True),
            ("pinned_gpus", {"q": [0]}),
        )
    ),
    (("gpu1llm.engines", {"vlm": {}}), f"{HOST}.engines", "no kind of engine"),
    (("gpu1llm.engines", {"vllm": {"keep": True}}), f"{HOST}.engines.vllm.keep", "no number"),
    (("gpu1llm.engines", {"vllm": []}), f"{HOST}.engines.vllm", "a mapping"),
    (("gpu1llm.driver", {"branch": True}), f"{HOST}.driver.branch", "no number"),
    (("gpu1llm.driver", {"reboot_batches": 2}), f"{HOST}.driver", "llm of all"),
    (("gpu1llm.tuning", {"power_limit_w": 3}), f"{HOST}.tuning.power_limit_w", "50"),
    (("gpu1llm.tuning", {"power": 300}), f"{HOST}.tuning.power", "known keys"),
)


def services(*more: dict[str, Any]) -> tuple[str, Any]:
    """More services beside the first, each by what differs."""
    base = {"model": "Qwen/Qwen3-8B", "max_model_len": 4096}
    all_of_them = [
        base | {"name": f"s{number}", "route": {"path_prefix": f"/s{number}"}} | own
        for number, own in enumerate(more)
    ]
    return "llm.services", all_of_them


def renamed(name: str) -> Any:
    """A change: the first host is called `name`."""

    def change(names: dict[str, Any]) -> None:
        names["gpu_hosts"][0][0] = names["all"][0][0] = name

    return change


TOKENS = tuple((f"service.{name}_tokens", 4000) for name in ("input", "output"))
CONTRADICTIONS: tuple[Row, ...] = (
    *(
        (renamed(group), f"hosts[{group}]", "is also a group", "name the host otherwise")
        for group in ("all", "gpu_hosts", "balancers", "site")
    ),
    (("lb1.ssh_port", 443), "hosts[lb-1].ssh_port", "balancer.port is 443", "set another"),
    (
        (("lb1.ssh_port", 8443), ("service.route.port", 8443)),
        "hosts[lb-1].ssh_port",
        "services[0].route.port is 8443",
    ),
    (("gpu1.ssh_port", 8001), "hosts[gpu-1].ssh_port", "q-0 is 8001", "set another"),
    (
        (("gpu2.ssh_hostname", "10.0.0.11"), ("gpu2llm.address", "10.0.0.13")),
        "hosts[gpu-2].ssh_hostname",
        "is also that of gpu-1",
    ),
    (
        ("balancer.engine_key_file", "{files}/copy.key"),
        "balancer.engine_key_file",
        "is also the key of clients",
    ),
    (
        ("balancer.virtual_address", "10.0.0.12"),
        "balancer.virtual_address",
        "is gpu-2's own",
    ),
    (
        (
            ("balancer.virtual_address", "10.0.0.99"),
            ("gpu2.ssh_hostname", "10.0.0.99"),
            ("gpu2llm.address", "10.0.0.12"),
        ),
        "balancer.virtual_address",
        "is gpu-2's own",
    ),
    (
        ("balancer.virtual_address", "fd00::9"),
        "balancer.virtual_address",
        "name one of the same kind",
    ),
    (
        ("gpu1.ssh_port", 7440),
        "hosts[gpu-1].ssh_port",
        "watchdog.port is 7440, too",
    ),
    (
        ("llm.watchdog", {"port": 8001}),
        "hosts[gpu-1].ports",
        "or watchdog.port",
    ),
    (
        ("balancer.engine_key_file", "{files}/api.key"),
        "balancer.engine_key_file",
        "is also the key of clients",
    ),
    (
        ("service.route.engine_key_file", "{files}/api.key"),
        "services[0].route.engine_key_file",
        "is also the key of clients",
    ),
    (
        (
            *(("service.single_endpoint", True), ("llm.balancer", GONE), without_balancers),
            *(("gpu1llm.gpus", "1x NVIDIA L40S"), without_second),
            ("service.route", {"api_key_file": "{files}/api.key", "path_prefix": "/a"}),
        ),
        "services[0].route.path_prefix",
        "no balancer",
    ),
    (("gpu1.ssh_user", "llm-engine"), "launch.user", "hosts[gpu-1].ssh_user"),
    (("lb1llm.retired", True), "hosts[lb-1].retired", "put it there"),
    (("lb1llm.price_per_month", 5), "hosts[lb-1].price_per_month", "put it there"),
    (("service.first_port", 29050), "services[0].first_port", "internal ports", "set another"),
    (("service.first_port", 28999), "services[0].first_port", "would listen on 29000"),
    (("balancer.port", 29100), "balancer.port", "internal ports", "launch.internal_ports_from"),
    (("launch.internal_ports_from", 8000), "services[0].first_port", "internal ports"),
    (("service.route.port", 29001), "services[0].route.port", "internal ports"),
    (("gpu1llm.ports", [29000, 8002]), "hosts[gpu-1].ports[0]", "internal ports"),
    (
        (("launch.internal_ports_from", 60000), ("gpu1llm.gpus", "64x NVIDIA L40S")),
        "launch.internal_ports_from",
        "past 65535",
        "set at most 59136",
    ),
    (
        services({"single_endpoint": True}, {"first_port": 9001}),
        "services[0].single_endpoint",
        "leave it out",
    ),
    (
        services({}, {"single_endpoint": True, "first_port": 9001}),
        "services[1].single_endpoint",
        "leave it out",
    ),
    (services({}, {}), "hosts[gpu-1].ports", "first_port"),
    (services({}, {"first_port": 8001}), "hosts[gpu-1].ports", "first_port"),
    (services({}, {"name": "s0"}), "services", "s0 is there 2 times"),
    (services({"share": 0.7}, {"share": 0.7}), "services", "make that at most 1"),
    (services({}, {"route": {"path_prefix": "/s0"}}), "services[1].route", "another path_prefix"),
    (services(*({"first_port": 9000 + n} for n in range(9))), "services", "at most 8"),
    (("validation.load_max_tokens", 4096), "validation.load_max_tokens", "set less"),
    (("validation.load_max_tokens", 4095), "validation.load_max_tokens", "no room for a prompt"),
    (("validation.load_max_tokens", 10**6), "validation.load_max_tokens", "set less"),
    (("service.max_model_len", 60), "validation.load_max_tokens", "set less"),
    (
        (("validation.idle_utilization_percent", 80), ("validation.busy_utilization_percent", 70)),
        "validation",
        "lower one",
    ),
    (
        (
            ("service.input_tokens", 4000),
            ("service.output_tokens", 4000),
            ("service.concurrency", 1),
        ),
        "services[0]",
        "more than max_model_len",
    ),
    (("service.objective", "goodput"), "services[0].objective", "'throughput'"),
    (("service.ttft_limit_ms", 500), "services[0]", "set concurrency"),
    (("service.route", {"port": 9443, "path_prefix": "/a"}), "services[0].route", "leave one"),
    (("service.route.port", 443), "services[0].route", "balancer.port"),
    (("llm.balancer", GONE), "balancer", "is missing"),
    (("balancer.certificate_file", "{files}/tls.crt"), "balancer", "give both"),
    (("balancer.certificate_key_file", "{files}/tls.key"), "balancer", "give both"),
    (("service.engine", "llama_cpp"), "services[0].model", "loads GGUF files"),
    (("gpu1llm.engines", {"vllm": {"device": "rocm"}}), "hosts[gpu-1].engines.vllm.device", "rocm"),
    (("service.model", "Qwen/Qwen2.5-72B-Instruct"), "services[0].model", "fits no host"),
)
