"""The planning of llama.cpp."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roles.engine.gguf.planning import GgufPlanning
from roles.engine.llama_cpp.arguments import check_arguments, unknown_by
from roles.engine.params import Argument, Speculation
from roles.engine.speculation import check_speculation
from roles.models import Adapter, Model

# Its names of the methods.
_TYPES: Mapping[str, str] = {
    "ngram": "ngram-simple",
    "draft_model": "draft-simple",
    "eagle3": "draft-eagle3",
}


@dataclass(frozen=True)
class LlamaCpp(GgufPlanning):
    """llama.cpp: GGUF files on one card, or whole layers over cards of any kinds."""

    kind: str = "llama_cpp"
    name: str = "llama.cpp"
    preferred_formats: tuple[str, ...] = ("gguf",)
    # Builds for CUDA 13 run from 7.5, those for CUDA 12 from 5.0.
    min_capability: float = 7.5
    min_capability_of_any_build: float = 5.0

    def weights_problem(self, weights: str | None) -> str | None:
        """The weights must be a GGUF file on the hosts."""
        if weights is not None and weights.startswith("/") and weights.endswith(".gguf"):
            return None
        return f"{weights!r} is no GGUF file on the hosts; set its whole path, /…/NAME.gguf"

    def check_arguments(self, arguments: Mapping[str, Argument], model: Model) -> None:
        """ValueError for an invalid option, or one that another setting decides."""
        check_arguments(arguments)

    def check_adapters(
        self, adapters: Sequence[Adapter], arguments: Mapping[str, Argument]
    ) -> None:
        """ValueError for several: llama-server adds all that it has to every answer."""
        if len(adapters) > 1:
            raise ValueError(
                f"{len(adapters)} of them: llama-server adds every one to each answer; leave one, "
                "or make each a service"
            )

    def speculative_arguments(
        self, speculation: Speculation, model: Model, arguments: Mapping[str, Argument]
    ) -> Mapping[str, Argument]:
        """`--spec-type`, and the draft model on the cards."""
        if speculation.method not in _TYPES:
            raise ValueError(
                f"method: {speculation.method} is not planned for llama.cpp; set one of "
                f"{', '.join(_TYPES)}"
            )
        check_speculation(speculation, model, same_words=False)
        kind = _TYPES[speculation.method]
        if speculation.model is None:
            return {"spec-type": kind, "spec-ngram-simple-size-m": speculation.tokens}
        if problem := self.weights_problem(speculation.weights):
            raise ValueError(f"weights: {problem}")
        return {
            "spec-type": kind,
            "spec-draft-model": speculation.weights,
            "spec-draft-n-max": speculation.tokens,
            "spec-draft-ngl": "all",
        }

    def knows(self, option: str) -> bool:
        """Whether b11434 has an option of this name."""
        return not unknown_by([option])


LLAMA_CPP = LlamaCpp()
