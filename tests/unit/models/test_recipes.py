"""The facts of vLLM's recipes."""

from roles.engine.vllm.parsers import PARSERS
from roles.models import recipe_of
from roles.models.recipes import _recipes


def test_a_recipe_by_id_and_by_the_model_of_a_variant():
    recipe = recipe_of("Qwen/Qwen3-32B")
    assert recipe is not None and recipe.least_version == (0, 8, 5)
    assert (recipe.tool_call_parser, recipe.reasoning_parser) == ("hermes", "qwen3")
    assert recipe_of("someone/Qwen3-32B-W4A16", "Qwen/Qwen3-32B") is recipe
    assert recipe_of("someone/else") is None


def test_a_single_id_may_need_a_newer_version():
    old, new = "deepseek-ai/DeepSeek-V4-Flash", "deepseek-ai/DeepSeek-V4-Flash-0731"
    assert recipe_of(old).least_version == (0, 20, 0)  # type: ignore[union-attr]
    assert recipe_of(new).least_version == (0, 25, 0)  # type: ignore[union-attr]


def test_verified_gpus():
    recipe = recipe_of("openai/gpt-oss-120b")
    assert recipe is not None and {"h100", "b200", "mi300x"} <= set(recipe.verified)


def test_every_parser_of_a_recipe_is_known():
    for option, known in PARSERS.items():
        named = {recipe.arguments.get(option) for recipe in _recipes().values()}
        assert named - {None} <= known
