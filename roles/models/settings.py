"""The settings of a model that the catalog does not have."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from roles.host import (
    IN_JSON,
    StrictSettings,
    parse_json,
    path_exists,
    read_bytes,
    validation_problems,
)
from roles.models.config import parse_config
from roles.models.config_keys import MAX_LAYERS
from roles.models.gguf_shape import GgufShape
from roles.models.model import Model

# Strict integers: neither true nor "5" is one, and no product of them overflows.
Count = Annotated[int, Field(strict=True, gt=0, lt=2**31)]
Bytes = Annotated[int, Field(strict=True, gt=0, lt=2**50)]


def _check_name_parts(name: str) -> str:
    # A name becomes part of paths on a host.
    if {"", ".", ".."} & set(name.split("/")):
        raise ValueError("a model's name has no empty part and none of dots alone")
    return name


ModelName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"),
    AfterValidator(_check_name_parts),
]


# Some hundred times what the largest models have.
Width = Annotated[int, Field(gt=0, le=2**22)]
Tokens = Annotated[int, Field(gt=0, le=2**28)]
# A small model has a gigabyte; the smallest test models have some megabytes.
WeightBytes = Annotated[int, Field(ge=2**20, lt=2**50)]
# The names of declared sizes in config.json.
_CONFIG_KEYS = {
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "attention_heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocab_size": "vocab_size",
    "context_limit_tokens": "max_position_embeddings",
}


class DeclaredModel(StrictSettings):
    """A dense decoder model by its sizes: those of its config.json, and its safetensors' bytes."""

    name: ModelName = Field(description="as on the model hub")
    weight_bytes: WeightBytes = Field(description="bytes of the safetensors files together")
    layers: Annotated[int, Field(gt=0, le=MAX_LAYERS)] = Field(
        description="num_hidden_layers of config.json"
    )
    hidden_size: Width = Field(description="hidden_size of config.json")
    intermediate_size: Width = Field(description="intermediate_size of config.json")
    attention_heads: Width = Field(description="num_attention_heads of config.json")
    kv_heads: Width = Field(description="num_key_value_heads of config.json")
    head_dim: Width = Field(
        description="head_dim of config.json, or hidden_size / num_attention_heads"
    )
    vocab_size: Tokens = Field(description="vocab_size of config.json")
    context_limit_tokens: Tokens = Field(description="max_position_embeddings of config.json")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.attention_heads % self.kv_heads:
            raise ValueError(
                f"kv_heads ({self.kv_heads}) must divide attention_heads ({self.attention_heads}): "
                "each KV head serves the same number of attention heads"
            )
        return self

    def model(self) -> Model:
        """The model of these sizes and weight bytes; ValueError if no model has them."""
        config: dict[str, Any] = {"model_type": "llama"}
        config |= {
            config_key: getattr(self, field_name) for field_name, config_key in _CONFIG_KEYS.items()
        }
        try:
            return parse_config(config, model_id=self.name, weights_bytes=self.weight_bytes)
        except ValueError as error:
            message = str(error)
            for field_name, config_key in {**_CONFIG_KEYS, "weight_bytes": "weights_bytes"}.items():
                message = message.replace(config_key, field_name)
            raise ValueError(message) from None


class RecordedModel(BaseModel):
    """A model by its config.json, as `python -m roles.models read` records it.

    `revision` is the commit of the hub that it was read at; `weights_bytes` the bytes of its
    tensors, None if no file has them. `quantization` is NVIDIA's hf_quant_config.json, or
    "gguf …" for a GGUF file, whose tensors by place are `gguf`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: ModelName
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None = None
    config: dict[str, Any] = Field(min_length=1)
    weights_bytes: Bytes | None = None
    quantization: (
        Annotated[str, StringConstraints(pattern=r"^gguf( |$)")] | dict[str, Any] | None
    ) = None
    gguf: GgufShape | None = None

    def model(self) -> Model:
        """The model of this config; the ValueError names what is wrong."""
        quantization = self.quantization
        try:
            model = parse_config(
                self.config,
                model_id=self.id,
                weights_bytes=self.weights_bytes,
                quantization=quantization if isinstance(quantization, str) else None,
                hf_quant=quantization if isinstance(quantization, dict) else None,
            )
            return replace(model, gguf=self.gguf, revision=self.revision)
        except ValueError as error:
            raise ValueError(f"config: {error}") from error

    def text(self) -> str:
        """The JSON object to commit, without unknown values."""
        known = self.model_dump(exclude_none=True)
        if self.gguf:
            known["gguf"] = _without_defaults(self.gguf)
        return json.dumps(known, indent=2, ensure_ascii=False) + "\n"


def _without_defaults(shape: GgufShape) -> dict[str, Any]:
    """The recorded form of a GGUF's shape: equal layers once, and without default zeros."""
    found = {key: value for key, value in asdict(shape).items() if value}
    layers = [{key: value for key, value in one.items() if value} for one in found.pop("layers")]
    return {**found, "layers": layers}


def nvidia_quantization(file: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The quantization of a hf_quant_config.json; None if it has none."""
    values = (file or {}).get("quantization", file)
    return dict(values) if values and isinstance(values, Mapping) else None


def declared_model(value: Any) -> Model:
    """The model that an inventory declares as a mapping: by its config, or by its sizes.

    ValueError (pydantic's for sizes) says what is wrong.
    """
    if not isinstance(value, Mapping) or not {"id", "config"} & value.keys():
        return DeclaredModel.model_validate(value).model()
    return _recorded_model(value)


def model_of_file(file: Path) -> Model:
    """The model in a JSON file that was recorded; ValueError says what is wrong and what to do."""
    name = str(file) if str(file).isprintable() else ascii(str(file))
    again = f"python -m roles.models read SOURCE > {name}"
    if not path_exists(file):
        raise ValueError(f"{name} is not there; make it: {again}")
    try:
        return _recorded_model(parse_json(read_bytes(file)))
    except ValueError as error:
        raise ValueError(f"{name}: {error}; correct it, or create it again: {again}") from None


def _recorded_model(value: Any) -> Model:
    try:
        return RecordedModel.model_validate(value).model()
    except ValidationError as error:
        raise ValueError(describe_errors(error)) from None


def describe_errors(error: ValidationError, kind: type[BaseModel] = RecordedModel) -> str:
    """pydantic's errors for settings of a kind that are written as JSON, in one line."""
    return "; ".join(validation_problems(error, kind, "", IN_JSON))
