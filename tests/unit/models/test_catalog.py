from pathlib import Path

import pytest
import yaml

import roles.models.catalog
from roles.models import Model, find

PATH = Path(roles.models.catalog.__file__).with_name("catalog.yaml")
ROWS = yaml.safe_load(PATH.read_text())
NAMES = [row["name"] for row in ROWS]

# Parameters that the published indexes or model cards give.
PARAMETERS = {
    "Qwen/Qwen2.5-14B-Instruct": 14_770_033_664,
    "Qwen/Qwen2.5-72B-Instruct": 72_706_203_648,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "mistralai/Mistral-Nemo-Instruct-2407": 12_247_782_400,
    "microsoft/phi-4": 14_659_507_200,
}
TIED = {
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen2.5-1.5B-Instruct",
    "Qwen/Qwen2.5-3B-Instruct",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-1.7B",
    "Qwen/Qwen3-4B",
    "meta-llama/Llama-3.2-1B-Instruct",
    "meta-llama/Llama-3.2-3B",
    "meta-llama/Llama-3.2-3B-Instruct",
}


def parameters(model: Model) -> int:
    """The number that the shapes of a dense Llama, Qwen or Mistral decoder give."""
    hidden = model.hidden_size
    qkv = (model.attention_heads + 2 * model.kv_heads) * model.head_dim
    output = model.attention_heads * model.head_dim * hidden
    layer = hidden * qkv + output + 3 * hidden * model.intermediate_size + 2 * hidden
    if model.name.startswith("Qwen/Qwen2.5"):
        layer += qkv  # biases of the projections
    if model.name.startswith("Qwen/Qwen3"):
        layer += 2 * model.head_dim  # norms of queries and keys
    embeddings = 1 if model.name in TIED else 2
    return model.layers * layer + hidden + embeddings * model.vocab_size * hidden


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_two_bytes_a_parameter(name: str):
    assert find(name).weight_bytes == 2 * parameters(find(name))


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_known_numbers_of_parameters(name: str, count: int):
    assert find(name).weight_bytes == 2 * count


def test_every_row_has_a_source_and_its_own_name():
    assert all(row["source"] for row in ROWS)
    assert len(set(NAMES)) == len(NAMES)
    assert [find(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("Qwen2.5-14B-Instruct", "Qwen/Qwen2.5-14B-Instruct"),
        ("meta-llama/llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("Qwen/Qwen3-8", "Qwen/Qwen3-8B"),
    ],
)
def test_an_unknown_name_is_told_the_close_ones(name: str, close: str):
    with pytest.raises(ValueError, match="declare its sizes") as error:
        find(name)
    assert close in str(error.value)


def test_a_name_like_no_other():
    with pytest.raises(ValueError, match=r"^unknown model 'zzz': declare its sizes"):
        find("zzz")
