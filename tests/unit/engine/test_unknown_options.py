"""Options that an engine's own version does not know are warned of, and no others."""

import pytest

from roles.engine import ENGINE_SETTINGS


@pytest.mark.parametrize(
    ("kind", "version", "option", "words"),
    [
        ("vllm", "vllm==0.33.0", "enable-prefix-caching", ()),
        ("vllm", "vllm==0.33.0", "no-enable-prefix-caching", ()),
        ("vllm", "vllm==0.33.0", "sleep-mode-backend", ()),
        ("vllm", "vllm==0.33.1", "enable-prefx-caching", ("vLLM 0.33 does", "mean enable-prefix")),
        ("vllm", "vllm==0.33.0", "enable-prefix-cach", ()),
        ("vllm", "vllm==0.33.0", "asc", ()),
        ("vllm", "vllm==0.33.0", "enforce-eagr", ("did you mean enforce-eager?",)),
        ("vllm", "vllm==0.33.0", "zzzzqqqq", ("leave it out",)),
        # What 0.33 added, or renamed.
        ("vllm", "vllm==0.32.0", "sleep-mode-backend", ("vLLM 0.32 does not know",)),
        ("vllm", "vllm==0.32.0", "watchdog-config", ("vLLM 0.32 does not know",)),
        ("vllm", "vllm==0.32.0", "no-enable-prefix-caching", ()),
        # Nobody read the options of these.
        ("vllm", "vllm==0.31.0", "sleep-mode-backend", ()),
        ("vllm", "vllm==0.40.0", "xyzzy", ("vLLM 0.32 or 0.33 does not know", "unless yours")),
        ("llama_cpp", "b11434", "threads", ()),
        ("llama_cpp", "b11434", "threds", ("llama-server b11434", "did you mean threads?")),
    ],
)
def test_options_of_a_version(kind: str, version: str, option: str, words: tuple[str, ...]):
    setting = "requirement" if kind == "vllm" else "version"
    found = ENGINE_SETTINGS[kind].model_validate({setting: version}).unknown_options([option])
    assert len(found) == bool(words)
    assert all(f"`{option}`" in one and word in one for word in words for one in found), found
