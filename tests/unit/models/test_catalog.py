"""The catalog: each row is a model that is known, with bytes that its shapes give."""

from collections.abc import Callable
from functools import cache

import pytest

from roles.models import Model, find
from roles.models.catalog import rows, variants
from roles.models.weights import checkpoint_bytes
from tests.unit.models.published import CONFIGS, published

NAMES = sorted(rows())

# Several tests look at the same rows.
known: Callable[[str], Model] = cache(find)

# Parameters of published indexes; of the shapes that were recalled, of model cards.
PARAMETERS = {
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-14B-Instruct": 14_770_033_664,
    "Qwen/Qwen2.5-72B-Instruct": 72_706_203_648,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "google/gemma-2-9b-it": 9_241_705_984,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "mistralai/Mistral-Nemo-Instruct-2407": 12_247_782_400,
    "mistralai/Mistral-Large-Instruct-2407": 122_610_069_504,
    "mistralai/Mixtral-8x22B-Instruct-v0.1": 140_630_071_296,
    "microsoft/phi-4": 14_659_507_200,
    "allenai/OLMo-2-0325-32B-Instruct": 32_234_279_936,
    "tiiuae/Falcon3-10B-Instruct": 10_305_653_760,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
}


def test_the_catalog_has_what_people_serve():
    assert len(NAMES) == 161
    recipes = {"Qwen/Qwen2.5-VL-7B-Instruct-AWQ", "Qwen/Qwen3.8-27B", *WITH_A_WARNING}
    assert recipes <= set(NAMES)
    organisations = {name.partition("/")[0] for name in NAMES}
    assert {"meta-llama", "Qwen", "deepseek-ai", "google", "mistralai", "openai", "zai-org"} <= (
        organisations
    )


# Of a kind whose layers are not known here: planned by its own sizes with a warning.
WITH_A_WARNING = {"deepseek-ai/DeepSeek-V4-Flash-0731"}


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_known_whole_and_its_bytes_are_those_of_its_shapes(name: str):
    model, row = known(name), rows()[name]
    assert (model.id, bool(model.warnings)) == (name, name in WITH_A_WARNING)
    assert model.scale == pytest.approx(1.0, abs=1e-9)
    assert checkpoint_bytes(model) == pytest.approx(row["weights_bytes"], rel=2e-3)
    assert row["source"].startswith("bytes: ")
    assert set(row) <= {"id", "like", "variant_of", "weights_bytes", "source", "config"}


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_known_numbers_of_parameters(name: str, count: int):
    assert known(name).weights_bytes == pytest.approx(2 * count, rel=1e-4)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if (CONFIGS / f"{name.replace('/', '--')}.json").is_file()]
)
def test_a_row_says_what_the_published_config_says(name: str):
    row, whole = known(name), published(name.partition("/")[2])
    # Some published files were found with another context limit than the hub has.
    assert row.layers == whole.layers
    assert row.first[0].inputs == whole.first[0].inputs
    assert row.tied_embeddings == whole.tied_embeddings
    kept = (row.quantization, whole.quantization)
    assert len({quantization and quantization.kv_cache_dtype for quantization in kept}) == 1


def test_variants_are_smaller_forms_of_a_model():
    for name in NAMES:
        base = rows()[name].get("variant_of")
        if base is not None and base in rows():
            assert known(name).variant_of == base
            assert known(name).quantization is not None
            assert len(known(name).layers) == len(known(base).layers)
    assert variants("Qwen/Qwen3-32B") == ("Qwen/Qwen3-32B-FP8", "Qwen/Qwen3-32B-AWQ")
    assert variants("Qwen/Qwen3-32B-AWQ") == ()


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("Qwen2.5-14B-Instruct", "Qwen/Qwen2.5-14B-Instruct"),
        ("meta-llama/llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("Qwen/Qwen3-8", "Qwen/Qwen3-8B"),
        # A name that was not written to its end, with or without who publishes it.
        ("Llama-3.3-70B", "did you mean meta-llama/Llama-3.3-70B-Instruct"),
        ("meta-llama/Llama-3.3-70B", "did you mean meta-llama/Llama-3.3-70B-Instruct"),
        ("someone/gpt-oss", "openai/gpt-oss-20b"),
    ],
)
def test_an_unknown_name_is_told_the_close_ones(name: str, close: str):
    with pytest.raises(ValueError, match="declare its sizes") as error:
        find(name)
    assert close in str(error.value)


def test_a_name_like_no_other():
    with pytest.raises(ValueError, match=r"^unknown model 'zzz': declare its sizes"):
        find("zzz")
