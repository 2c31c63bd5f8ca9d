"""The tensors of a model's parts, as vLLM 0.33 allocates them: fused, stacked, split.

Sources: vLLM 0.33 `model_executor/models/` and `layers/linear.py`.
"""

from dataclasses import dataclass

from roles.models.families import latent_size
from roles.models.fields import Fields
from roles.models.linear_formats import Formats
from roles.models.model import Format, Split, Weight


@dataclass(frozen=True)
class Builder:
    """Creates tensors under a path, each in the checkpoint's format for it."""

    fields: Fields
    formats: Formats
    plain: Format
    hidden: int
    prefix: str = ""

    def at(self, prefix: str) -> "Builder":
        """The same builder, deeper in the model."""
        return Builder(self.fields, self.formats, self.plain, self.hidden, self.prefix + prefix)

    def linear(
        self,
        name: str,
        outputs: int,
        inputs: int,
        split: Split = "outputs",
        *,
        bias: bool = False,
        kv: tuple[int, int] = (0, 0),
        experts: int = 0,
    ) -> list[Weight]:
        """A linear and its bias; `kv` are the KV outputs and heads of a fused QKV projection."""
        path = self.prefix + name
        format = self.formats.of(path) or self.plain
        name = _within_layer(path)
        made = [Weight(name, outputs, inputs, format, split, *kv, experts)]
        if bias:
            side: Split = "outputs" if split == "outputs" else "replicated"
            made.append(Weight(name + ".bias", outputs, 1, self.plain, side, *kv, experts))
        return made

    def unquantised(
        self, name: str, outputs: int, inputs: int = 1, split: Split = "replicated"
    ) -> list[Weight]:
        """Parameters that no method quantises: norms, routers, convolutions, embeddings."""
        return [Weight(_within_layer(self.prefix + name), outputs, inputs, self.plain, split)]


def _within_layer(path: str) -> str:
    """A path without the layer's number, so that equal layers are equal."""
    return path.split(".", 2)[2] if path.startswith("layers.") else path


def attention(
    build: Builder,
    heads: int,
    kv_heads: int,
    head_size: int,
    *,
    bias: bool = False,
    output_bias: bool = False,
    gate: bool = False,
    query_norm: int = 0,
) -> list[Weight]:
    """Grouped-query attention; `gate` doubles the queries, `query_norm` counts norm parameters."""
    queries = heads * head_size
    return [
        *build.linear(
            "qkv_proj",
            queries * (1 + gate),
            build.hidden,
            bias=bias,
            kv=(2 * kv_heads * head_size, kv_heads),
        ),
        *build.linear("o_proj", build.hidden, queries, "inputs", bias=output_bias),
        *(build.unquantised("q_norm", query_norm) if query_norm else []),
    ]


def latent_attention(build: Builder, heads: int) -> list[Weight]:
    """MLA: down projections and norms are replicated, the rest is split by heads.

    vLLM also keeps a copy of kv_b_proj in the model's dtype, split for the absorbed form, if the
    checkpoint quantises it (`mla_attention.process_weights_after_loading`).
    """
    fields = build.fields
    latent = fields.integer("kv_lora_rank")
    rope = latent_size(fields, "qk_rope_head_dim")
    nope = latent_size(fields, "qk_nope_head_dim")
    if fields.model_type == "minicpm3":
        value = fields.integer("v_head_dim", default=fields.integer("hidden_size") // heads)
    else:
        value = latent_size(fields, "v_head_dim")
    rank = fields.get("q_lora_rank")
    made: list[Weight] = []
    if rank:
        made += build.linear("fused_qkv_a_proj", rank + latent + rope, build.hidden, "replicated")
        made += build.linear("q_b_proj", heads * (nope + rope), rank)
        made += build.unquantised("q_a_layernorm", rank)
    else:
        made += build.linear("q_proj", heads * (nope + rope), build.hidden)
        made += build.linear("kv_a_proj_with_mqa", latent + rope, build.hidden, "replicated")
    decompress = build.linear("kv_b_proj", heads * (nope + value), latent)
    made += decompress
    if decompress[0].format != build.plain:
        made += build.unquantised("absorbed", heads * (nope + value), latent, "outputs")
    made += build.unquantised("kv_a_layernorm", latent)
    made += build.linear("o_proj", build.hidden, heads * value, "inputs")
    return made


def indexer(build: Builder) -> list[Weight]:
    """The sparse attention indexer of DeepSeek V3.2 and GLM-5, replicated on every GPU."""
    heads = build.fields.integer("index_n_heads")
    size = build.fields.integer("index_head_dim")
    rank = build.fields.integer("q_lora_rank")
    return [
        *build.linear("indexer.wq_b", heads * size, rank, "replicated"),
        *build.linear("indexer.wk", size, build.hidden, "replicated"),
        *build.unquantised("indexer.k_norm", 2 * size),
        *build.unquantised("indexer.weights_proj", heads, build.hidden),
    ]


def dense(build: Builder, size: int, *, gated: bool = True, bias: bool = False) -> list[Weight]:
    """A feed-forward block."""
    up = "gate_up_proj" if gated else "up_proj"
    return [
        *build.linear(up, size * (1 + gated), build.hidden, bias=bias),
        *build.linear("down_proj", build.hidden, size, "inputs", bias=bias),
    ]


def experts(
    build: Builder,
    count: int,
    size: int,
    *,
    gated: bool = True,
    bias: bool = False,
    inputs: int | None = None,
) -> list[Weight]:
    """A router and stacked experts; `inputs` is the experts' width if it is not the model's."""
    width = inputs or build.hidden
    return [
        *build.unquantised("gate", count, build.hidden),
        *build.linear("experts", size * (1 + gated), width, bias=bias, experts=count),
        *build.linear("experts.down", width, size, "inputs", bias=bias, experts=count),
    ]


def gated_delta_net(build: Builder) -> list[Weight]:
    """Linear attention of Qwen3-Next and Qwen3.5."""
    fields, hidden = build.fields, build.hidden
    keys = fields.integer("linear_num_key_heads") * fields.integer("linear_key_head_dim")
    heads = fields.integer("linear_num_value_heads")
    values = heads * fields.integer("linear_value_head_dim")
    kernel = fields.integer("linear_conv_kernel_dim", default=4)
    return [
        *build.linear("in_proj_qkvz", 2 * keys + 2 * values, hidden),
        *build.linear("in_proj_ba", 2 * heads, hidden),
        *build.unquantised("conv1d", 2 * keys + values, kernel, "outputs"),
        *build.unquantised("dt_bias", 4 * heads, 1, "outputs"),
        *build.linear("out_proj", hidden, values, "inputs"),
    ]


def kimi_delta_attention(build: Builder, heads: int, size: int, kernel: int) -> list[Weight]:
    """Linear attention of Kimi-Linear."""
    hidden, wide = build.hidden, heads * size
    return [
        *build.linear("qkv_proj", 3 * wide, hidden),
        *build.unquantised("conv1d", 3 * wide, kernel, "outputs"),
        *build.linear("f_a_proj", size, hidden, "replicated"),
        *build.linear("f_b_proj", wide, size),
        *build.linear("g_a_proj", size, hidden, "replicated"),
        *build.linear("g_b_proj", wide, size),
        *build.linear("b_proj", heads, hidden),
        *build.unquantised("dt_bias", wide, 1, "outputs"),
        *build.linear("o_proj", hidden, wide, "inputs"),
    ]


def mamba2(build: Builder, heads: int, size: int, groups: int, state: int) -> list[Weight]:
    """Mamba 2, as NemotronH, Bamba and Granite hybrids have it."""
    wide, kernel = heads * size, build.fields.integer("conv_kernel", "mamba_d_conv", default=4)
    channels = wide + 2 * groups * state
    return [
        *build.linear("in_proj", wide + channels + heads, build.hidden),
        *build.unquantised("conv1d", channels, kernel + 1, "outputs"),
        *build.unquantised("norm", wide + 4 * heads, 1, "outputs"),
        *build.linear("out_proj", build.hidden, wide, "inputs"),
    ]


def mamba1(build: Builder, wide: int, state: int, rank: int) -> list[Weight]:
    """Mamba 1, as Jamba has it; A and D are kept in float32."""
    kernel = build.fields.integer("mamba_d_conv", "conv_kernel", default=4)
    return [
        *build.linear("in_proj", 2 * wide, build.hidden),
        *build.unquantised("conv1d", wide, kernel + 1, "outputs"),
        *build.linear("x_proj", rank + 2 * state, wide, "inputs"),
        *build.linear("dt_proj", wide, rank, bias=True),
        *build.unquantised("a_d", 2 * wide, state + 1, "outputs"),
        *build.linear("out_proj", build.hidden, wide, "inputs"),
    ]
