"""The parsers of tool calls and of reasoning that vLLM has, by the options that name them.

Source: vLLM 0.32 `tool_parsers/__init__.py` and `reasoning/__init__.py`. What older versions have
was not read.
"""

import difflib
from collections.abc import Mapping

from roles.engine.needs import Version
from roles.engine.params import Argument

READ_AT: Version = (0, 32)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


PARSERS: Mapping[str, frozenset[str]] = {
    "tool-call-parser": _names("""
        apertus cohere_command3 cohere_command4 deepseek_v3 deepseek_v31 deepseek_v32 deepseek_v4
        deepseek_v41 dots ernie45 functiongemma gemma4 gigachat3 glm45 glm47 granite granite-20b-fc
        granite4 hermes hf hunyuan_a13b hy_v3 hy_v4 inkling internlm jamba k2_horizon kimi_k2
        kimi_k3 lfm2 ling3 llama3_json llama4_json llama4_pythonic longcat mimo minicpm5 minimax_m2
        minimax_m3 mistral muse_glimmer olmo3 openai phi4_mini_json plamo3 poolside_v1 pythonic
        qwen3_coder qwen3_json qwen3_xml seed_oss step3 step3p5 xlam
        """),
    "reasoning-parser": _names("""
        cohere_command3 cohere_command4 deepseek_r1 deepseek_v3 deepseek_v4 deepseek_v41 ernie45
        gemma4 glm45 glm47 granite granite_thinking_parser hf holo2 hunyuan_a13b hy_v3 hy_v4 inkling
        k2_horizon kimi_k2 kimi_k3 ling3 mimo minicpmv minimax_m2 minimax_m2_append_think minimax_m3
        mistral muse_glimmer nemotron_v3 none olmo3 openai_gptoss plamo3 poolside_v1 qwen3 seed_oss
        step3 step3p5
        """),
}
# Options by which a service brings parsers of its own.
_PLUGINS = {
    "tool-call-parser": "tool-parser-plugin",
    "reasoning-parser": "reasoning-parser-plugin",
}


def parser_problem(arguments: Mapping[str, Argument], version: Version) -> str | None:
    """The first parser that a version does not have, and what to do; None if it has all."""
    for option, known in PARSERS.items():
        name = arguments.get(option)
        if name is None or name in known or _PLUGINS[option] in arguments or version < READ_AT:
            continue
        close = difflib.get_close_matches(str(name), known, n=1)
        guess = f"did you mean {close[0]}? Or " if close else ""
        return (
            f"{option}: vLLM {'.'.join(map(str, version))} has no {str(name)[:60]!r}; {guess}set "
            f"one of {', '.join(sorted(known))}"
        )
    return None
