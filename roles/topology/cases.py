"""The JSON-line commands: the fields that their cases share, and the reading of lines."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from roles.host import parse_json
from roles.models import (
    Bytes,
    Model,
    catalog_config,
    describe_errors,
    find,
    has_context_limit,
    parse_config,
)

# Of a request whose size is not said.
INPUT_TOKENS, OUTPUT_TOKENS = 1024, 256
# More GPUs than any replica has.
Parallel = Annotated[int, Field(ge=1, le=4096)]
Short = Annotated[str, StringConstraints(max_length=200)]
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


def without_nulls(data: Any) -> Any:
    """The mapping without null values: null means the default, as a missing key does."""
    if not isinstance(data, Mapping):
        return data
    return {key: value for key, value in data.items() if value is not None}


def _possible_gib(value: float) -> float:
    if value > 1024:
        raise ValueError(
            f"{value:g} is more than a GPU has; give GiB: {value:g} MiB is {value / 1024:.4g}"
        )
    if value < 0.25:
        raise ValueError(f"{value:g} is less than a GPU has; give GiB: 1024 MiB each")
    return value


CardGib = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_possible_gib)]


class GpuSettings(BaseModel):
    """The GPU of a case: its name, its memory, or both."""

    model_config = STRICT

    name: Short | None = Field(default=None, description="as people write it: 'H100 80G'")
    memory_gib: CardGib | None = Field(
        default=None, description="its size, or what CUDA gives of it"
    )


class ModelCase(BaseModel):
    """The model of a case, by its config.json or by its id in the catalog."""

    model_config = STRICT

    id: str | int | None = Field(default=None, description="comes back with the answer")
    config: Annotated[dict[str, Any], Field(min_length=1)] | None = Field(
        default=None, description="the model's config.json"
    )
    model: Short | None = Field(default=None, description="instead of config: an id of the catalog")
    weights_bytes: Bytes | None = Field(default=None, description="exact bytes of the tensors")
    quantization: Short | None = None
    dtype: Short | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return without_nulls(data)

    @model_validator(mode="after")
    def _has_a_model(self) -> "ModelCase":
        if self.config is None and self.model is None:
            raise ValueError("neither config nor model is set; set one of them")
        return self


AnyCase = TypeVar("AnyCase", bound=ModelCase)


def answered(
    lines: Iterable[str], kind: type[AnyCase], answer: Callable[[AnyCase], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The answer to each line that is not blank; {"id", "error"} for an invalid one."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _answered(number, line, kind, answer)


def _answered(
    number: int, line: str, kind: type[AnyCase], answer: Callable[[AnyCase], dict[str, Any]]
) -> dict[str, Any]:
    try:
        data = parse_json(line)
    except ValueError as error:
        return {"id": None, "error": f"line {number} {error}; give one JSON object a line"}
    if not isinstance(data, dict):
        return {"id": None, "error": f"line {number} is no JSON object; give one a line"}
    given_id = data.get("id")
    id = given_id if isinstance(given_id, str | int) and not isinstance(given_id, bool) else None
    try:
        return answer(kind.model_validate(data))
    except ValidationError as error:
        return {"id": id, "error": describe_errors(error, kind)}
    except ValueError as error:
        return {"id": id, "error": str(error)}


def model_of(case: ModelCase, max_model_len: int | None) -> Model:
    """The model of a case, for requests of some length; the ValueError names the wrong field."""
    overrides = (case.weights_bytes, case.quantization, case.dtype)
    if case.config is not None:
        model = _parsed(json.dumps(case.config, sort_keys=True), case.model or "", *overrides)
        return _with_limit(model, case.config, max_model_len or 0)
    name = str(case.model)
    try:
        known = find(name)
    except ValueError as error:
        raise ValueError(f"model: {error}; or set config") from error
    if overrides == (None, None, None):
        return known
    weights = case.weights_bytes or (None if case.quantization else known.weights_bytes)
    config = json.dumps(catalog_config(name), sort_keys=True)
    return _parsed(config, name, weights, case.quantization, case.dtype)


def _with_limit(model: Model, config: Mapping[str, Any], length: int) -> Model:
    """The model; if its config has no context limit, with the requested length as its limit, as in
    vLLM."""
    if length <= model.context_limit_tokens or has_context_limit(config):
        return model
    return replace(model, context_limit_tokens=length)


def _bits(model: Model) -> float:
    return model.quantization.linear.bits if model.quantization else 16


@lru_cache(maxsize=512)
def _parsed(
    text: str, name: str, weights_bytes: int | None, quantization: str | None, dtype: str | None
) -> Model:
    """The model of a config, given as text so that it can be cached: cases often share a model."""
    config = json.loads(text)
    more: dict[str, Any] = {"model_id": name, "weights_bytes": weights_bytes, "dtype": dtype}
    try:
        model = parse_config(config, quantization=quantization, **more)
        if quantization and config.pop("quantization_config", None):
            # The widths differ: the config belongs to another variant of the model.
            requantized = parse_config(config, quantization=quantization, **more)
            if _bits(requantized) != _bits(model):
                return requantized
        return model
    except ValueError as error:
        raise ValueError(f"config: {error}") from error
