"""Small routes and settings for the balancer's tests."""

from pathlib import Path
from typing import Any

from roles.balancer import BalancerSettings, BalancerState, Member, Route, Upstream
from roles.balancer.routes import upstream_name

CLIENT_KEY = "sk-test.client~key+0123/456789=="
ENGINE_KEY = "engine-key-0123456789"
ADDRESSES = {"gpu1": "10.0.0.1", "gpu2": "10.0.0.2", "gpu3": "fd00:0::3"}


def member(id: str, port: int = 8000, address: str | None = None, weight: int = 1) -> Member:
    """A member by its id; its host's address is one of ADDRESSES unless said."""
    host = id.partition("/")[0]
    return Member(id, host, address or ADDRESSES[host], port, weight)


def members(service: str = "chat", **ports: list[int]) -> tuple[Member, ...]:
    """Members of hosts, one a port: HOST/SERVICE-0, HOST/SERVICE-1 …"""
    return tuple(
        member(f"{host}/{service}-{number}", port)
        for host, own in ports.items()
        for number, port in enumerate(own)
    )


def route(service: str = "chat", *of: Member, **values: Any) -> Route:
    """A route to these members, else to four on three hosts."""
    found = of or members(service, gpu1=[8000, 8001], gpu2=[8000], gpu3=[8000])
    keys: dict[str, Any] = {"api_key": CLIENT_KEY, "engine_key": ENGINE_KEY}
    return Route(service, "tiny", found, **(keys | values))


def state(*routes: Route, **values: Any) -> BalancerState:
    """The state of a balancer with these routes, else with one of four members."""
    upstreams = (Upstream(r.service, upstream_name(r.service), r.members) for r in routes)
    return BalancerState(tuple(upstreams) or state(route()).upstreams, **values)


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    """A file of that mode."""
    path.write_text(text)
    path.chmod(mode)
    return path


def settings(folder: Path, **values: Any) -> BalancerSettings:
    """Settings whose key files are below `folder`."""
    api_key = private(folder / "api.key", CLIENT_KEY + "\n")
    engine_key = private(folder / "engine.key", ENGINE_KEY)
    keys = {"api_key_file": api_key, "engine_key_file": engine_key}
    return BalancerSettings.model_validate(keys | values)
