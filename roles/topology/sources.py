"""Where the model of a service comes from: its sizes for the plan, and its weights for engines."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, InstanceOf, StringConstraints

from roles.host import check_path
from roles.models import Model, declared_model, find, model_of_file


def _check_path_parts(weights: str) -> str:
    parts = weights.split("/")
    if ".." in parts or "." in parts:
        raise ValueError(f"{weights!r} has a part of dots alone; write the folder's own path")
    if "" in parts[1:-1] or weights == "/":
        raise ValueError(f"{weights!r} has an empty part; write the folder's own path")
    return weights


Weights = Annotated[
    str,
    # PATH_MAX of Linux.
    StringConstraints(pattern=r"^[A-Za-z0-9/][A-Za-z0-9._/@:+-]*$", max_length=4095),
    AfterValidator(_check_path_parts),
]


def load_model(value: Any) -> Any:
    """The model that an inventory names or declares; ValueError says what is wrong."""
    if isinstance(value, Model):
        return value
    if not isinstance(value, str | Mapping):
        raise ValueError(
            f"{value!r:.60} is no model; name one in quotes, or give a mapping of its sizes"
        )
    if not isinstance(value, str):
        return declared_model(value)
    return model_of_file(check_path(value)) if value.endswith(".json") else _of_catalog(value)


def _of_catalog(name: str) -> Model:
    try:
        return find(name)
    except ValueError as error:
        raise ValueError(
            f"{error}; or name a .json file that `python -m roles.models read` made of it"
        ) from None


NamedModel = Annotated[InstanceOf[Model], BeforeValidator(load_model), "text or mapping"]
