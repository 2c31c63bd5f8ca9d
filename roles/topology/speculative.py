"""The settings of a service's speculative decoding."""

from typing import Self

from pydantic import Field, model_validator

from roles.engine.params import Method, Speculation
from roles.engine.speculation import WITH_MODEL
from roles.host import StrictSettings
from roles.topology.sources import NamedModel, Weights


class SpeculativeSettings(StrictSettings):
    """What drafts tokens that the model then checks several at a time."""

    method: Method = Field(
        description="ngram: what the text has already; draft_model: a small model with the same "
        "vocabulary; eagle or eagle3: a head that was trained for the model; mtp: the model's own "
        "heads for further tokens"
    )
    tokens: int = Field(default=3, ge=1, le=16, description="tokens that are drafted for a step")
    model: NamedModel | None = Field(
        default=None, description="what drafts, named as `services[].model` is"
    )
    weights: Weights | None = Field(
        default=None,
        description="where engines load it from, as `services[].weights`; its name unless said",
    )

    @model_validator(mode="after")
    def _has_what_drafts(self) -> Self:
        needed = self.method in WITH_MODEL
        if needed and self.model is None:
            raise ValueError(f"model: is missing; name what drafts by {self.method}")
        if not needed and (self.model or self.weights):
            raise ValueError(f"model: nothing is loaded for {self.method}; leave it out")
        return self

    @property
    def words(self) -> str:
        """What a plan follows from, in words."""
        by = f" by {self.model.name}" if self.model else ""
        return f"{self.tokens} tokens, {self.method}{by}"

    @property
    def speculation(self) -> Speculation:
        """The same for engines."""
        if self.model is None:
            return Speculation(self.method, self.tokens)
        own = self.weights in (None, self.model.name)
        return Speculation(
            self.method,
            self.tokens,
            self.model,
            self.weights or self.model.name,
            self.model.revision if own else None,
        )
