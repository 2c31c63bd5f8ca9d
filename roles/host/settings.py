"""The base of all settings: strict types, and checked paths, addresses and URLs."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Item = TypeVar("Item")
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# RFC 1035: maximum length of a name, and of a label between dots.
_MAX_NAME_LENGTH, _MAX_LABEL_LENGTH = 253, 63
# Linux: PATH_MAX and NAME_MAX.
_MAX_PATH_LENGTH, _MAX_PART_LENGTH = 4095, 255
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")


class StrictSettings(BaseModel):
    """Strict settings: unknown keys and values of another type are errors.

    Neither `True` nor `"5"` is a number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _tuple_of_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# A list in an inventory, which becomes a tuple.
Several = Annotated[tuple[Item, ...], BeforeValidator(_tuple_of_list)]


def check_path(value: Any) -> Path:
    """The path; ValueError if no file can have it."""
    if not isinstance(value, str | Path):
        raise ValueError(f"{value!r:.60} is no path; write it as text")
    text = str(value) if isinstance(value, Path) else value
    if not text.strip() or text == ".":
        raise ValueError("is empty; name a file, or leave the setting out")
    if not text.isprintable():
        raise ValueError(f"{text!r:.60} has characters that no path should have; name a file")
    if len(text) > _MAX_PATH_LENGTH or any(
        len(part) > _MAX_PART_LENGTH for part in text.split("/")
    ):
        raise ValueError(f"{text!r:.60}… is longer than a path may be; name a file")
    return Path(value)


# A file on the control machine.
LocalFile = Annotated[Path, BeforeValidator(check_path)]


def check_host_name(name: str, written: str | None = None) -> str:
    """A DNS name as it is written; ValueError if it is not one, or is too long."""
    labels = name.removesuffix(".").split(".")
    if len(name) > _MAX_NAME_LENGTH or any(len(label) > _MAX_LABEL_LENGTH for label in labels):
        raise ValueError(
            f"{name[:40]!r}… is longer than a DNS name may be ({_MAX_NAME_LENGTH} characters, "
            f"{_MAX_LABEL_LENGTH} between dots); give a shorter one"
        )
    if labels[-1].isdigit():
        # No domain ends in a number, so this must be an address.
        check_address(name)
    elif not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{name!r} is not a DNS name; give one such as llm.example.com")
    return written or name


def check_url(url: str) -> str:
    """A URL as it is; ValueError if its host or port is not valid."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if ":" in host:
            check_address(host)
        else:
            check_host_name(host)
    except ValueError as error:
        raise ValueError(
            f"{url!r:.80} is no URL: {error}; write https://HOST or HOST:PORT"
        ) from None
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError(f"{url!r:.80} is no URL: its port is none; write a port from 1 to 65535")
    return url


def check_address(value: Any) -> Address:
    """The IP address of one host; ValueError if it is not one."""
    if isinstance(value, IPv4Address | IPv6Address):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} is no IP address; write it as text: '10.0.0.11'")
    try:
        address = ip_address(value)
    except ValueError:
        raise ValueError(f"{value!r:.60} is no IP address; give one such as 10.0.0.11") from None
    if problem := _unfit(address):
        raise ValueError(f"{value} {problem}; give the host's own address")
    return address


def _unfit(address: Address) -> str | None:
    """Why an address cannot be one host's address as others see it; None if it can."""
    if isinstance(address, IPv6Address) and address.scope_id:
        return "has a zone, which means something on one machine alone"
    if address.is_unspecified or (address.version == 4 and address in ip_network("0.0.0.0/8")):
        return "stands for any address"
    if address.is_multicast:
        return "is a multicast address"
    if address == IPv4Address("255.255.255.255"):
        return "is the broadcast address"
    if address.is_reserved and not address.is_loopback:
        return "is a reserved address that no host has"
    if address.version == 6 and address.is_link_local:
        return "is of one link, and needs a zone that differs from machine to machine"
    return None


def check_network(value: Any) -> Network:
    """The network or single address; ValueError if it is not one."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} is no network; write it as text: '10.0.0.0/8'")
    try:
        if "%" in value:
            raise ValueError("a zone")
        network = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r:.60} is no network; give one such as 10.0.0.0/8") from None
    own = value.partition("/")[0]
    if str(network.network_address) != str(ip_address(own)):
        raise ValueError(f"{value!r} has host bits; write {network}, or {own} for one host")
    if network.is_multicast:
        raise ValueError(f"{value} is multicast; give the addresses that clients come from")
    return network


HostAddress = Annotated[Address, BeforeValidator(check_address)]
HostNetwork = Annotated[Network, BeforeValidator(check_network)]
# Upper bound of every time setting: a day. Requests, loads and reboots take less.
DAY_S = 86_400


def _check_engine_port(port: int) -> int:
    # Below 1024 a port needs rights that engines do not have.
    if not 1024 <= port <= 65535:
        raise ValueError(f"{port} is outside 1024-65535; set one within")
    return port


def _check_public_port(port: int) -> int:
    if port == 22:
        raise ValueError("22 is the port of ssh, by which the host is reached; set another")
    return port


# The port where clients reach a balancer.
PublicPort = Annotated[int, Field(ge=1, le=65535), AfterValidator(_check_public_port)]
EnginePort = Annotated[int, AfterValidator(_check_engine_port)]
