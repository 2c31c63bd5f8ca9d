"""Names of models as Ollama and its registries have them: `HOST/NAMESPACE/MODEL:TAG`.

Source: Ollama 0.33, `types/model/name.go`.
"""

import re
from dataclasses import dataclass

HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
_HOST = re.compile(r"\w[\w.:-]{0,349}", re.ASCII)
_NAMESPACE = re.compile(r"\w[\w-]{0,79}", re.ASCII)
_PART = re.compile(r"\w[\w.-]{0,79}", re.ASCII)


@dataclass(frozen=True)
class Name:
    """A whole name; parts that were left out have their defaults."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def page(self) -> str:
        """The path of its manifest on its registry."""
        return f"v2/{self.namespace}/{self.model}/manifests/{self.tag}"

    @property
    def file(self) -> str:
        """The file of its manifest, below the folder of manifests."""
        return f"{self.host}/{self.namespace}/{self.model}/{self.tag}"

    def same(self, other: "Name") -> bool:
        """Whether Ollama takes both for one model: the case of letters does not count."""
        return str(self).lower() == str(other).lower()

    def __str__(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"


def parse(text: str) -> Name:
    """The name in a text; ValueError if it is none."""
    path, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        path, tag = text, TAG
    parts = path.split("/")
    if len(parts) > 3:
        raise ValueError(f"{text!r} has more parts than HOST/NAMESPACE/MODEL:TAG")
    host, namespace, model = (*(HOST, NAMESPACE)[: 3 - len(parts)], *parts)
    name = Name(host, namespace, model, tag)
    valid = (
        _HOST.fullmatch(name.host)
        and _NAMESPACE.fullmatch(name.namespace)
        and _PART.fullmatch(name.model)
        and _PART.fullmatch(name.tag)
    )
    if not valid:
        raise ValueError(
            f"{text!r} is no name of a model: letters, digits, - and _, in MODEL and TAG also "
            "points, at most 80 each"
        )
    return name
