"""What a model is to a planner: its weights and the shape of its attention."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Integers as they are written: neither true nor "5" is one, and no product of them overflows.
Count = Annotated[int, Field(strict=True, gt=0, lt=2**31)]
Bytes = Annotated[int, Field(strict=True, gt=0, lt=2**50)]


class Model(BaseModel):
    """A dense decoder model in one precision.

    Sizes are those of its config.json; `weight_bytes` is the sum of its safetensors files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", description="as on the model hub")
    weight_bytes: Bytes = Field(description="bytes of the safetensors files together")
    layers: Count = Field(description="num_hidden_layers of config.json")
    hidden_size: Count = Field(description="hidden_size of config.json")
    intermediate_size: Count = Field(description="intermediate_size of config.json")
    attention_heads: Count = Field(description="num_attention_heads of config.json")
    kv_heads: Count = Field(description="num_key_value_heads of config.json")
    head_dim: Count = Field(
        description="head_dim of config.json, or hidden_size / num_attention_heads"
    )
    vocab_size: Count = Field(description="vocab_size of config.json")
    context_limit_tokens: Count = Field(description="max_position_embeddings of config.json")
    kv_element_bytes: float = Field(
        default=2,
        ge=0.25,
        le=4,
        strict=True,
        allow_inf_nan=False,
        description="bytes of one element of the KV cache",
    )

    @field_validator("name")
    @classmethod
    def _no_way_up(cls, name: str) -> str:
        # A name becomes part of paths on a host.
        if {"", ".", ".."} & set(name.split("/")):
            raise ValueError("a model's name has no empty part and none of dots alone")
        return name

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.attention_heads % self.kv_heads:
            raise ValueError(
                f"kv_heads ({self.kv_heads}) must divide attention_heads ({self.attention_heads}): "
                "each KV head serves the same number of attention heads"
            )
        return self

    @property
    def padded_vocab_size(self) -> int:
        """The vocabulary as vLLM holds it: in whole 64s."""
        return -(-self.vocab_size // 64) * 64
