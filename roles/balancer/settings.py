"""Settings of the balancer."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from roles.balancer.files import read_key
from roles.balancer.given_certificate import check_certificate
from roles.balancer.programs import DEFAULT, TEMPLATES, Program
from roles.host import (
    DAY_S,
    HostAddress,
    LocalFile,
    PublicPort,
    StrictSettings,
    check_host_name,
    check_private,
    read_text,
)

SERVER_NAME = re.compile(r"_|(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*")


class BalancerSettings(StrictSettings):
    """The program on each balancer, in front of every replica of every service.

    Files are on the control machine; relative paths start at the current directory, which is the
    repository's root. They are checked here, before any host is contacted.
    """

    program: Program = Field(default=DEFAULT, description="the program in front")
    port: PublicPort = Field(default=443, description="the port that clients reach, TLS only")
    ipv6: bool = Field(
        default=True, description="listen on IPv6 as well; off where the kernel has no IPv6"
    )
    virtual_address: HostAddress | None = Field(
        default=None,
        description="IP address that all balancers share: it moves within seconds to one that "
        "answers (keepalived); a free address of their network",
    )
    server_name: str = Field(
        default="_", description="the DNS name that clients use; `_` answers to every name"
    )
    certificate_file: LocalFile | None = Field(
        default=None, description="PEM certificate with its chain; none: the balancer makes its own"
    )
    certificate_key_file: LocalFile | None = Field(
        default=None, description="PEM key of `certificate_file`, readable by its owner alone"
    )
    api_key_file: LocalFile = Field(
        description="file whose only line is the key that clients send, readable by its owner alone"
    )
    engine_key_file: LocalFile | None = Field(
        default=None,
        description="the same for the key that engines expect, which balancers send; unless said, "
        "the deploy makes INVENTORY/engines.key beside `api_key_file`",
    )
    connect_timeout_s: int = Field(
        default=2,
        gt=0,
        # Longer than any TCP stack goes on trying.
        le=300,
        description="seconds until a replica that does not answer is given up for another",
    )
    read_timeout_s: int = Field(
        default=600,
        gt=0,
        le=DAY_S,
        description="seconds that an engine may be silent within a request",
    )
    max_fails: int = Field(
        # Failures within at most 300 seconds.
        default=2,
        ge=1,
        le=1000,
        description="failures within `fail_timeout_s` after which a replica is left out",
    )
    fail_timeout_s: int = Field(
        default=10,
        ge=1,
        le=300,
        description="seconds that a replica is left out before it is tried again",
    )
    max_body_mib: int = Field(
        # A request of text, or of a few pictures and films.
        default=32,
        ge=1,
        le=4096,
        description="largest request in MiB",
    )
    completion_timeout_s: int = Field(
        default=30,
        gt=0,
        le=3600,
        description="seconds that a replica has for one token when it is asked at a deploy",
    )
    template: LocalFile | None = Field(
        default=None,
        description="own Jinja2 template in place of the program's own, below templates/PROGRAM/",
    )

    @field_validator("virtual_address")
    @classmethod
    def _virtual_address_is_reached(cls, address: HostAddress | None) -> HostAddress | None:
        if address is not None and (address.is_loopback or address.is_link_local):
            raise ValueError(
                f"{address} is reached by no client; name a free address of the balancers' network"
            )
        return address

    @field_validator("server_name")
    @classmethod
    def _server_name_is_a_name(cls, name: str) -> str:
        if not SERVER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a DNS name: give one such as llm.example.com, or _")
        return name if name == "_" else check_host_name(name.removeprefix("*."), name)

    @field_validator("api_key_file", "engine_key_file")
    @classmethod
    def _key_file_holds_a_key(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and needs_secrets(info):
            read_key(path)
        return path

    @field_validator("certificate_file", "certificate_key_file")
    @classmethod
    def _file_is_pem(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None or not needs_secrets(info):
            return path
        if "-----BEGIN " not in read_text(path):
            raise ValueError(f"{path} is not a PEM file: convert it with openssl")
        return path

    @field_validator("certificate_key_file")
    @classmethod
    def _certificate_key_is_private(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and needs_secrets(info):
            check_private(path)
        return path

    @field_validator("template")
    @classmethod
    def _template_keeps_drains(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and "program" in info.data:
            TEMPLATES[info.data["program"]].check(path)
        return path

    @model_validator(mode="after")
    def _certificate_has_its_key(self, info: ValidationInfo) -> Self:
        if (self.certificate_file is None) != (self.certificate_key_file is None):
            raise ValueError(
                "certificate_file and certificate_key_file belong together: give both, or none "
                "for a self-signed certificate"
            )
        if self.certificate_file and self.certificate_key_file and needs_secrets(info):
            check_certificate(
                self.certificate_file,
                self.certificate_key_file,
                self.server_name,
                datetime.now(UTC),
            )
        return self


def generated_key_file(settings: BalancerSettings, inventory: str) -> Path:
    """The file of the key that a deploy makes for the engines of an inventory."""
    return settings.api_key_file.parent / inventory / "engines.key"


def needs_secrets(info: ValidationInfo) -> bool:
    """Whether files with secrets must exist; a plan can be reviewed without them."""
    return (info.context or {}).get("secrets", True)
