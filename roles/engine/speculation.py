"""Speculative decoding: what drafts tokens, and the memory of it. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import lru_cache

from roles.engine.params import Argument, Speculation
from roles.models import Model, checkpoint_bytes, shape_problems
from roles.plan import Shape

# Methods for which a model of their own drafts.
WITH_MODEL = ("draft_model", "eagle", "eagle3")


def check_speculation(speculation: Speculation, model: Model, same_words: bool) -> None:
    """ValueError for a draft model that is not made for a model; with `same_words` both need the
    same number of tokens in their vocabulary."""
    draft = speculation.model
    if draft is None:
        return
    if draft.format != model.format:
        raise ValueError(f"model: {draft.name} is {draft.format}, and the service's {model.format}")
    if speculation.method != "draft_model" and draft.hidden_size != model.hidden_size:
        raise ValueError(
            f"model: {draft.name} is for a hidden size of {draft.hidden_size}, and {model.name} "
            f"has {model.hidden_size}; name the one that was trained for it"
        )
    words = draft.vocabulary_size, model.vocabulary_size
    if speculation.method == "draft_model" and same_words and words[0] != words[1]:
        raise ValueError(
            f"model: {draft.name} has a vocabulary of {words[0]} tokens, and {model.name} of "
            f"{words[1]}; name one with the same"
        )
    if speculation.method == "draft_model" and checkpoint_bytes(draft) >= checkpoint_bytes(model):
        raise ValueError(
            f"model: {draft.name} is no smaller than {model.name}, so drafting gains nothing; name "
            "a smaller one"
        )


def check_options(arguments: Mapping[str, Argument], names: Collection[str]) -> None:
    """ValueError for an option that says of speculative decoding what the setting says."""
    for name in arguments:
        if name in names:
            raise ValueError(f"{name} in arguments contradicts speculative; leave one of them out")


@lru_cache(maxsize=256)
def with_draft(model: Model, speculation: Speculation | None) -> Model:
    """The model as memory has it: with the layers and the ends of its draft, whose KV cache has a
    place for each token, too.

    Sources: vLLM 0.33 (`v1/spec_decode/`: the draft's layers are in the same groups of KV cache),
    SGLang 0.5.23 (its flags: "the draft pool is allocated with one slot per target token"). A head
    of the model's own is taken as one more of its layers.
    """
    if speculation is None or speculation.method == "ngram":
        return model
    draft = speculation.model
    if draft is None:
        return replace(model, layers=(*model.layers, model.layers[-1]))
    ends = (*model.last, *draft.first, *draft.last)
    return replace(model, layers=(*model.layers, *draft.layers), last=ends)


def draft_problem(speculation: Speculation | None, shape: Shape) -> str | None:
    """Why a draft model cannot be split as the model is; None if it can."""
    draft = speculation.model if speculation else None
    problems = shape_problems(draft, shape.tensor_parallel, 1) if draft else ()
    return f"{shape} is not possible for the draft model: {problems[0]}" if problems else None
