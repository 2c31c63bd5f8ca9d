"""What a model is to a planner: its weights and the shape of its attention."""

from typing import Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)


class Model(BaseModel):
    """A dense decoder model in one precision.

    Sizes are those of its config.json; `weight_bytes` is the sum of its safetensors files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", description="as on the model hub")
    weight_bytes: PositiveInt = Field(description="bytes of the safetensors files together")
    layers: PositiveInt = Field(description="num_hidden_layers of config.json")
    hidden_size: PositiveInt = Field(description="hidden_size of config.json")
    intermediate_size: PositiveInt = Field(description="intermediate_size of config.json")
    attention_heads: PositiveInt = Field(description="num_attention_heads of config.json")
    kv_heads: PositiveInt = Field(description="num_key_value_heads of config.json")
    head_dim: PositiveInt = Field(
        description="head_dim of config.json, or hidden_size / num_attention_heads"
    )
    vocab_size: PositiveInt = Field(description="vocab_size of config.json")
    context_limit_tokens: PositiveInt = Field(description="max_position_embeddings of config.json")
    kv_element_bytes: float = Field(
        default=2,
        gt=0,
        le=4,
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
    def kv_bytes_per_token(self) -> float:
        """Bytes of KV cache for one token over all layers and KV heads (a key and a value each)."""
        return self.layers * 2 * self.kv_heads * self.head_dim * self.kv_element_bytes
