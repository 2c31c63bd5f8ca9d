"""The settings that builds of all engines share."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from roles.engine.needs import Device
from roles.engine.params import Argument, EngineParams
from roles.host import LocalFile, Several, StrictSettings, check_private, check_url, read_text
from roles.host.paths import CACHE
from roles.models import Model
from roles.plan import Executor, HostPlan


def _check_package(name: str) -> str:
    # To apt, a last "-" or "+" is an order to remove or to install.
    if name.endswith("-") or (name.endswith("+") and not name.endswith("++")):
        raise ValueError(f"{name!r} is no package: leave its last {name[-1]} out")
    return name


Package = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]+$", max_length=100),
    AfterValidator(_check_package),
]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]*$")]


def check_source(source: str) -> str:
    """A path or URL, unchanged; ValueError if it is neither, or a URL with credentials.

    Credentials would be in arguments, which anybody on a host may read, and in reports.
    """
    if re.match(r"https?://[^/]*@", source):
        raise ValueError("holds credentials; put them into the hosts' /root/.netrc")
    if ".." in source.split("/"):
        raise ValueError(f"{source!r} goes up by '..'; write the folder's own path")
    return source if source.startswith("/") else check_url(source)


def _check_hub(name: str, text: str) -> None:
    if not re.match(r"https?://", text):
        raise ValueError(f"{name}: {text!r:.60} is no URL; write it as in {HUB}")
    try:
        check_source(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


# Where an engine comes from: a URL, or a path on the hosts.
Source = Annotated[
    str,
    StringConstraints(pattern=r"^(https?://|/)[A-Za-z0-9._~:/\[\]@+=%-]+$"),
    AfterValidator(check_source),
]

HUB = "https://huggingface.co"
# A token must fit into an HTTP header: printable, without blanks, of limited length.
_TOKEN = re.compile(r"[!-~]{1,1024}")
# Linux allows 128 KiB a variable, and systemd less a line; paths and flags need far less.
_MAX_VALUE_LENGTH = 8192
# Environment variables that an inventory may not set, and what decides them.
PLANNED = {
    "CUDA_VISIBLE_DEVICES": "the plan",
    "HIP_VISIBLE_DEVICES": "the plan",
    "ROCR_VISIBLE_DEVICES": "the plan",
    "CUDA_DEVICE_ORDER": "the plan",
    "HF_TOKEN": "hub_token_file",
    "HUGGING_FACE_HUB_TOKEN": "hub_token_file",
    "HOME": "launch",
    "PATH": "launch",
}


_SECRET = re.compile(r"(TOKEN|KEY|PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL)S?(_|$)")


class Build(StrictSettings, ABC):
    """The settings of every kind of engine; each kind's own settings extend them."""

    kind: ClassVar[str]
    asks_for_key: ClassVar[bool] = True
    """Whether the engine refuses requests without its key."""

    device: Device = Field(
        default="cuda", description="what the engine computes on; chooses how GPUs are handed to it"
    )
    packages: Several[Package] | None = Field(
        default=None,
        description="packages of the distribution that the engine needs, instead of the usual ones",
    )
    environment: dict[EnvironmentName, str] = Field(
        default={},
        description="more environment variables for every replica; what is called …TOKEN, …KEY, "
        "…PASSWORD, …SECRET or the like is kept in a file of root's",
    )
    hub_token_file: LocalFile | None = Field(
        default=None,
        description="file here with the model hub's token, mode 0600; for gated models",
    )
    keep: int = Field(
        default=2, ge=1, le=10, description="installed versions to keep, the current included"
    )

    @field_validator("hub_token_file")
    @classmethod
    def _token_is_there(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        hub = info.data.get("environment", {}).get("HF_ENDPOINT", HUB)
        if value is not None and not hub.startswith("https://"):
            raise ValueError(
                f"the token goes over TLS alone, and HF_ENDPOINT is {hub}; make that https, or "
                "leave the token out"
            )
        if value is None or not (info.context or {}).get("secrets", True):
            return value
        token = read_text(value).strip()
        if not _TOKEN.fullmatch(token):
            what = "is empty" if not token else "is no token of one line"
            raise ValueError(f"{value} {what}; write the token alone into it")
        check_private(value)
        return value

    @field_validator("environment")
    @classmethod
    def _one_line(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name in cls.planned():
                raise ValueError(f"{name} follows from {cls.planned()[name]}; leave it out here")
            if not text.isprintable():
                raise ValueError(f"{name}: control characters and newlines are not allowed")
            if len(text) > _MAX_VALUE_LENGTH:
                raise ValueError(
                    f"{name}: has more than {_MAX_VALUE_LENGTH} characters; shorten it"
                )
            if name == "HF_ENDPOINT":
                _check_hub(name, text)
        return value

    @classmethod
    def planned(cls) -> dict[str, str]:
        """Environment variables that an inventory may not set, and what decides them."""
        return PLANNED

    def executor_problem(self, executor: Executor) -> str | None:
        """Why this build cannot join the hosts of a replica that way, and the remedy; None if it
        can."""
        return None

    @property
    def missing(self) -> tuple[str, str] | None:
        """A missing setting without which the build cannot be installed, and the remedy; else
        None."""
        return None

    def lacks(
        self,
        model: Model,
        params: EngineParams,
        arguments: Mapping[str, Argument],
        plan: HostPlan,
    ) -> str | None:
        """What this version does not have of what a service needs on a host, and the remedy."""
        return None

    @property
    def options_are_listed(self) -> bool:
        """Whether the options of this very version were read: unknown ones are refused then, and
        else warned of."""
        return False

    def unknown_options(self, arguments: Iterable[str]) -> tuple[str, ...]:
        """Which options this version does not know, in words, each with the nearest one."""
        return ()

    def is_older(self, version: Sequence[int]) -> bool:
        """Whether this build is older than a version of its engine."""
        return False

    @property
    @abstractmethod
    def version_name(self) -> str:
        """The folder name of this build: its version, and a digest of its sources."""

    @property
    @abstractmethod
    def system_packages(self) -> tuple[str, ...]:
        """The distribution's packages that hosts need before the engine is installed."""

    @property
    def hub(self) -> str | None:
        """URL of the hub that models are loaded from; None if the environment sets it offline.

        The environment variables are those of huggingface_hub.
        """
        if any(self.is_on(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
            return None
        return self.environment.get("HF_ENDPOINT", HUB).rstrip("/")

    def hub_folder(self, source: str) -> str:
        """Where the weights of a name on the hub are kept on the host, as huggingface_hub does."""
        return f"{self._hub_cache}/models--{source.replace('/', '--')}"

    def copy_folder(self, source: str) -> str | None:
        """Where the engine copies a file with weights to, on the host; None where it reads the file
        itself."""
        return None

    def hub_page(self, source: str) -> tuple[str | None, str]:
        """The hub that has a model by its name, None without one, and the path of a page there by
        which it tells whether it has it."""
        is_hub = "modelscope" not in (self.hub or "")
        return self.hub, f"{source}/resolve/main/config.json" if is_hub else f"models/{source}"

    @property
    def _hub_cache(self) -> str:
        """The cache of huggingface_hub, by the environment variables that it reads."""
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            if self.environment.get(name):
                return self.environment[name].rstrip("/")
        return f"{self.environment.get('HF_HOME', f'{CACHE}/hub').rstrip('/')}/hub"

    @property
    def plain_environment(self) -> dict[str, str]:
        """The variables of `environment` that anybody on a host may read."""
        return {name: text for name, text in self.environment.items() if not _SECRET.search(name)}

    @property
    def secret_environment(self) -> dict[str, str]:
        """The variables whose names mark them as secrets."""
        return {name: text for name, text in self.environment.items() if _SECRET.search(name)}

    def is_on(self, variable: str) -> bool:
        """Whether an environment variable is set to a true value."""
        value = self.environment.get(variable, "").strip().lower()
        return value in ("1", "true", "yes", "on")

    @property
    def hub_token(self) -> str | None:
        """The model hub's token; None without a token file."""
        return read_text(self.hub_token_file).strip() if self.hub_token_file else None
