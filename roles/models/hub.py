"""Reads a model from the model hub: its config and its tensors' bytes, at a pinned revision."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from roles.host import check_url, parse_json
from roles.models import adapter, checkpoint
from roles.models.settings import RecordedModel, nvidia_quantization

ENDPOINT = "https://huggingface.co"
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$")
_ENDPOINT = re.compile(r"^https?://[^/@\s]+(/[^@\s]*)?$")
_SINGLE = "model.safetensors"
# An adapter of the highest rank on a model of 70 billion parameters has some 7 GiB; it is held in
# memory while it comes.
MAX_ADAPTER_BYTES = 2**33
# Enough for most headers, so that one request does.
_FIRST_BYTES = 2**20


class HubError(ValueError):
    """The hub did not give a file; the message says why and what to do."""


def read_hub(
    name: str, *, token: str | None = None, endpoint: str = ENDPOINT, timeout_s: float = 20
) -> RecordedModel:
    """Read `org/name` or `org/name@revision`; a branch or tag is pinned to its commit.

    The token is sent only to the endpoint, over TLS, and not to hosts of redirects. HubError if the
    name, the revision or a file does not exist, access is refused, or the hub cannot be reached;
    ValueError for a file that cannot be parsed.
    """
    hub, revision = _hub(name, token, endpoint, timeout_s)
    path, commit = hub.name, hub.commit(revision)
    config = hub.mapping(commit, "config.json")
    if config is None:
        raise HubError(f"{path} has no config.json at {commit[:12]}: name another model")
    return RecordedModel(
        id=path,
        revision=commit,
        config=dict(config),
        weights_bytes=hub.weights_bytes(commit),
        quantization=nvidia_quantization(hub.mapping(commit, "hf_quant_config.json")),
    )


def _hub(name: str, token: str | None, endpoint: str, timeout_s: float) -> tuple["_Hub", str]:
    """The hub's view of a name, and the revision; HubError for invalid ones."""
    path, _, revision = name.partition("@")
    if not _NAME.fullmatch(path):
        raise HubError(f"{name!r} is no name on the hub: write org/name or org/name@revision")
    if not _ENDPOINT.fullmatch(endpoint):
        raise HubError("the hub's endpoint must be a URL without credentials: https://HOST")
    try:
        check_url(endpoint)
    except ValueError as error:
        raise HubError(f"the hub's endpoint {error}") from None
    if token and not endpoint.startswith("https://"):
        raise HubError(
            f"the token goes over TLS alone, and not to {endpoint}: give --endpoint https://HOST, "
            "or leave the token out (HF_TOKEN, --token-file)"
        )
    return _Hub(endpoint.rstrip("/"), path, token, timeout_s), revision or "main"


def fetch_adapter(
    name: str,
    folder: Path,
    *,
    token: str | None = None,
    endpoint: str = ENDPOINT,
    timeout_s: float = 20,
) -> str:
    """Copy the files of a LoRA adapter, `org/name` or `org/name@revision`, into a folder; returns
    the commit. Raises as `read_hub` does."""
    hub, revision = _hub(name, token, endpoint, timeout_s)
    commit = hub.commit(revision)
    folder.mkdir(parents=True, exist_ok=True)
    for file in (adapter.CONFIG, adapter.WEIGHTS):
        hub.copy(commit, file, folder / file)
    return commit


@dataclass(frozen=True)
class _Hub:
    endpoint: str
    name: str
    token: str | None
    timeout_s: float

    def commit(self, revision: str) -> str:
        """The commit of a branch, a tag or a commit."""
        if _COMMIT.fullmatch(revision):
            return revision
        content = self._get(f"/api/models/{self.name}/revision/{quote(revision, safe='')}")
        if content is None:
            raise HubError(
                f"{self.name}@{revision} is not on {self.endpoint}: check the name and revision"
            )
        try:
            found = str(parse_json(content).get("sha", ""))
        except (ValueError, AttributeError) as error:
            raise HubError(f"{self.endpoint} answered something else than JSON") from error
        if not _COMMIT.fullmatch(found):
            raise HubError(f"{self.endpoint} names no commit for {self.name}@{revision}")
        return found

    def mapping(self, commit: str, file: str) -> Mapping[str, Any] | None:
        """A JSON file as a mapping; None if the model has no such file."""
        content = self._get(self._path(commit, file))
        if content is None:
            return None
        try:
            return checkpoint.read_mapping(content, f"{file} of {self.name}")
        except ValueError as error:
            raise HubError(str(error)) from None

    def weights_bytes(self, commit: str) -> int | None:
        """Bytes of the tensors by the index, or by the files' headers; None without either."""
        index = self.mapping(commit, checkpoint.INDEX)
        if index is None:
            return self._file_bytes(commit, _SINGLE)
        metadata, weight_map = index.get("metadata"), index.get("weight_map")
        if not isinstance(weight_map, Mapping) or (
            isinstance(metadata, Mapping) and metadata.get("total_size")
        ):
            return checkpoint.index_bytes(json.dumps(index), f"{self.name}/{checkpoint.INDEX}")
        # Some publishers omit the total.
        files = sorted({str(file) for file in weight_map.values()})
        sizes = [self._file_bytes(commit, file) for file in files]
        return sum(size or 0 for size in sizes) if sizes and all(sizes) else None

    def copy(self, commit: str, file: str, to: Path) -> None:
        """Copy a whole file; it takes its place only once it is whole."""
        content = self._get(self._path(commit, file), most=MAX_ADAPTER_BYTES)
        if content is None:
            raise HubError(f"{self.name} has no {file} at {commit[:12]}: name a LoRA adapter")
        if len(content) >= MAX_ADAPTER_BYTES:
            raise HubError(f"{self.name}: {file} is larger than any adapter; name another")
        new = to.with_name(f".{to.name}.new")
        new.write_bytes(content)
        new.replace(to)

    def _file_bytes(self, commit: str, file: str) -> int | None:
        """Bytes of the tensors of one safetensors file, by its header; None without the file."""
        path, where = self._path(commit, file), f"{self.name}/{file}"
        first = self._get(path, (0, _FIRST_BYTES - 1))
        if first is None:
            return None
        size = checkpoint.header_size(first, where)
        if len(first) >= 8 + size:
            return checkpoint.header_bytes(first[8 : 8 + size], where)
        whole = self._get(path, (0, 7 + size))
        return None if whole is None else checkpoint.header_bytes(whole[8:], where)

    def _path(self, commit: str, file: str) -> str:
        return f"/{self.name}/resolve/{commit}/{file}"

    def _get(
        self, path: str, part: tuple[int, int] | None = None, most: int = checkpoint.HEADER_LIMIT
    ) -> bytes | None:
        """A file, or its first bytes; None if it does not exist."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        most = part[1] + 1 if part else most
        if part:
            headers["Range"] = f"bytes={part[0]}-{part[1]}"
        try:
            # Streamed, as a server may ignore the range of a file of many GB.
            with requests.get(
                self.endpoint + path, headers=headers, timeout=self.timeout_s, stream=True
            ) as answer:
                self._check_https(answer)
                return self._content(answer, path, most)
        except requests.RequestException as error:
            # The error's own text may contain the address, but never the token.
            raise HubError(
                f"{self.endpoint} cannot be reached ({type(error).__name__}): plan with a model of "
                "the catalog or a local folder, or try again"
            ) from error

    def _check_https(self, answer: requests.Response) -> None:
        """HubError if the hub redirected from TLS to plain http. The token was not sent there:
        requests removes it for another host, port or scheme."""
        if self.endpoint.startswith("https://") and not answer.url.startswith("https://"):
            raise HubError(
                f"{self.endpoint} leads to plain http, where anybody on the way could change the "
                "file: give another --endpoint"
            )

    def _content(self, answer: requests.Response, path: str, most: int) -> bytes | None:
        if answer.status_code in (401, 403):
            raise HubError(self._refused(answer.status_code))
        if answer.status_code == 404:
            return None
        if answer.status_code not in (200, 206):
            raise HubError(f"{self.endpoint} answered {answer.status_code} for {path}: try again")
        content = bytearray()
        for chunk in answer.iter_content(2**16):
            content += chunk
            if len(content) >= most:
                break
        return bytes(content[:most])

    def _refused(self, status: int) -> str:
        if self.token:
            return (
                f"{self.name}: access is refused ({status}): accept the model's terms on "
                f"{self.endpoint}/{self.name} with the account of the token"
            )
        return (
            f"{self.name} is gated or does not exist ({status}): check the name, or give a token "
            "of an account that may read it (HF_TOKEN or --token-file)"
        )
