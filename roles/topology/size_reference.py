"""docs/sizing.md: the answers of `size` to what people ask most, made by `make reference`.

`python -m roles.topology.size_reference docs/sizing.md` writes the page.
"""

import shlex
import sys
from pathlib import Path

from roles.topology import size_command
from roles.topology.__main__ import parser

HEAD = """# Sizing

<!-- made by `make reference`, do not edit -->

On which cards (kinds of GPU) a model runs, how many of them it takes, and how fast it is there.
Each table is what the command above it prints; [Planning](planning.md#sizing) says what its
columns mean, and [how good the figures are](planning.md#how-good-the-figures-are). The range holds
four of five measurements of cards and models that the estimate has not seen. For other models,
loads, cards and your own prices, run the command yourself.
"""
COMMON = "L4,L40S,RTX 4090,RTX 5090,RTX PRO 6000 Blackwell Server,A100-SXM4-80GB,H100 80GB HBM3"
LARGE = "H100 80GB HBM3,H200,B200,MI300X,MI325X"
SECTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "A 70B",
        "The least number of each card that holds 16 requests at once.",
        (
            "meta-llama/Llama-3.3-70B-Instruct --concurrency 16 --hosts 1 "
            f"--cards '{COMMON},H200,MI300X'",
        ),
    ),
    (
        "Mixtral 8x22B",
        "",
        (
            "mistralai/Mixtral-8x22B-Instruct-v0.1 --concurrency 16 --hosts 1 "
            f"--cards '{COMMON},H200,MI300X'",
        ),
    ),
    (
        "DeepSeek-V3 and a 405B",
        "In FP8. What no host of eight holds takes two of them as a cluster.",
        (
            f"deepseek-ai/DeepSeek-V3 --concurrency 32 --hosts 1,2 --cards '{LARGE}'",
            "meta-llama/Llama-3.1-405B-Instruct-FP8 --concurrency 32 --hosts 1,2 "
            f"--cards '{LARGE}'",
        ),
    ),
    (
        "Tensor parallel against replicas",
        "Four cards of one host: which split wins depends on the model, the links and the load.",
        tuple(
            f"{model} --concurrency {load} --hosts 1 --gpus 4 --cards 'L40S,H100 80GB HBM3'"
            for model in ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen3-30B-A3B")
            for load in (4, 64, 512)
        ),
    ),
)


def page() -> str:
    """The whole page, in Markdown."""
    return "\n".join([HEAD, *(_section(*section) for section in SECTIONS)])


def _section(title: str, text: str, calls: tuple[str, ...]) -> str:
    return "\n".join([f"## {title}\n", *([f"{text}\n"] if text else []), *map(_answer, calls)])


def _answer(call: str) -> str:
    options = parser().parse_args(["size", *shlex.split(call)])
    command = f"```sh\npython -m roles.topology size {call}\n```\n"
    return f"{command}\n```text\n{size_command.size(options)}\n```\n"


def main(arguments: list[str]) -> int:
    """Write the named page."""
    Path(arguments[0]).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
