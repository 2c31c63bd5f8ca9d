"""Names of models as Ollama reads them."""

import pytest

from roles.engine.ollama.names import parse


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("llama3.2", "registry.ollama.ai/library/llama3.2:latest"),
        ("llama3.2:3b", "registry.ollama.ai/library/llama3.2:3b"),
        ("acme/mine", "registry.ollama.ai/acme/mine:latest"),
        ("Qwen/Qwen2.5-14B-Instruct", "registry.ollama.ai/Qwen/Qwen2.5-14B-Instruct:latest"),
        ("hf.co/bartowski/Qwen3-8B-GGUF:Q4_K_M", "hf.co/bartowski/Qwen3-8B-GGUF:Q4_K_M"),
        ("10.0.0.1:5000/library/tiny", "10.0.0.1:5000/library/tiny:latest"),
        ("10.0.0.1:5000/library/tiny:7b", "10.0.0.1:5000/library/tiny:7b"),
    ],
)
def test_what_is_left_out_has_its_default(text: str, whole: str):
    assert str(parse(text)) == whole


@pytest.mark.parametrize(
    "text",
    [
        *("", "a b", "a/b/c/d", "a.b/c", "-a", "a:", ":b", "a:b:c", "a/", "/a", "a//b"),
        *("x" * 81, "a:" + "b" * 81, "a:b/c:d", "a\n", "ä", "a@b"),
    ],
)
def test_what_is_no_name_is_refused(text: str):
    with pytest.raises(ValueError, match=r"HOST/NAMESPACE|no name"):
        parse(text)


def test_the_case_of_letters_makes_no_other_model():
    assert parse("Llama3.2").same(parse("llama3.2:latest"))
    assert not parse("llama3.2:3b").same(parse("llama3.2"))


def test_a_registry_has_a_page_of_each():
    assert parse("llama3.2:3b").page == "v2/library/llama3.2/manifests/3b"
