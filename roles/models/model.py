"""What a model is to a planner: its weights and the shape of its attention."""

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class Model(BaseModel):
    """A dense decoder model in one precision.

    Sizes are those of its config.json; `weight_bytes` is the sum of its safetensors files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*\Z", description="as on the model hub")
    weight_bytes: PositiveInt
    layers: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    attention_heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    vocab_size: PositiveInt
    context_limit_tokens: PositiveInt
    kv_element_bytes: float = Field(2, gt=0, description="bytes of one element of the KV cache")

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes of KV cache for one token over all layers and KV heads (a key and a value each)."""
        return self.layers * 2 * self.kv_heads * self.head_dim * self.kv_element_bytes
