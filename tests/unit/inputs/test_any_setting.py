"""Values that no setting takes, made from the settings' own types: each is refused by its name."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from roles.declaration import problems_of
from roles.declaration.reference import TABLES
from tests.unit.inputs.test_settings import MODEL

SERVICE = {"name": "q", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
# What a kind of settings cannot do without.
REQUIRED: dict[str, dict[str, Any]] = {
    "Service": SERVICE,
    "DeclaredModel": MODEL,
    "BalancerSettings": {"api_key_file": "x"},
    "FleetSettings": {"services": [SERVICE], "balancer": {"api_key_file": "x"}},
}
FIELDS = [
    (kind, name, field)
    for _, kind in TABLES
    for name, field in kind.model_fields.items()
    if not field.exclude
]
VALUES = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=5),
    st.none(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    st.sampled_from([Path("x"), {1}, frozenset({"a"}), object(), 1j, int, range(3)]),
)


def alternatives(annotation: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each member of a union with what its annotation adds."""
    if get_origin(annotation) is Annotated:
        inner, *added = get_args(annotation)
        yield from ((member, (*more, *added)) for member, more in alternatives(inner))
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from alternatives(member)
    else:
        yield annotation, ()


def could_be(value: Any, member: Any) -> bool:
    """Whether a value is of the type of a member; whether its text or size is right, is open."""
    if get_origin(member) is Literal:
        return any(value is one or value == one for one in get_args(member))
    kind = get_origin(member) or member
    if kind is type(None):
        return value is None
    if kind is float:
        return type(value) in (int, float)
    if kind is tuple:
        return isinstance(value, list | tuple)
    if issubclass(kind, BaseModel):
        return isinstance(value, dict)
    if kind in (bool, int, str, dict):
        return type(value) is kind
    # Paths, addresses and models are written as text or as mappings.
    return isinstance(value, str | dict | kind)


def limits(field: FieldInfo) -> st.SearchStrategy[Any] | None:
    """Integers outside of a number's bounds; None for what is no number."""
    found = list(alternatives(field.annotation))
    if not any(member in (int, float) for member, _ in found):
        return None
    outside = []
    added = [one for _, more in found for one in more]
    # What `Field` says within a type stands in an object of its own.
    printed = [one for of in added if isinstance(of, FieldInfo) for one in of.metadata]
    for bound in (*field.metadata, *added, *printed):
        match bound:
            case annotated_types.Le(most) | annotated_types.Lt(most):
                outside.append(st.integers(min_value=int(most) + 1))  # type: ignore[call-overload]
            case annotated_types.Ge(least) | annotated_types.Gt(least):
                outside.append(st.integers(max_value=int(least) - 1))  # type: ignore[call-overload]
    return st.one_of(outside) if outside else None


def check_refused(kind: type[BaseModel], name: str, value: Any) -> None:
    data = REQUIRED.get(kind.__name__, {}) | {name: value}
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(data, context={"secrets": False})
    found = list(problems_of(caught.value, kind, "here"))
    assert any(f"here.{name}" in line for line in found), found
    assert all("\n" not in line and len(line) < 2000 for line in found)
    # Of all that pydantic says nothing comes through as it says it.
    assert not any(
        word in line for word in ("nput should", "alid ", "instance of") for line in found
    )


@pytest.mark.parametrize(("kind", "name", "field"), FIELDS, ids=lambda one: str(one)[:20])
def test_a_value_of_another_type_is_refused(kind: type[BaseModel], name: str, field: FieldInfo):
    members = [member for member, _ in alternatives(field.annotation)]

    @settings(max_examples=8)
    @given(VALUES.filter(lambda value: not any(could_be(value, member) for member in members)))
    def refused(value: Any) -> None:
        check_refused(kind, name, value)

    refused()


@pytest.mark.parametrize(
    ("kind", "name", "outside"),
    [(kind, name, found) for kind, name, field in FIELDS if (found := limits(field)) is not None],
    ids=lambda one: str(one)[:20],
)
def test_a_number_out_of_bounds_is_refused(
    kind: type[BaseModel], name: str, outside: st.SearchStrategy[Any]
):
    @settings(max_examples=4)
    @given(outside)
    def refused(value: Any) -> None:
        check_refused(kind, name, value)

    refused()


def test_every_number_has_bounds():
    """Of every number it is said what no sane value is less or more than."""
    numbers = {
        (kind.__name__, name)
        for kind, name, field in FIELDS
        if any(member in (int, float) for member, _ in alternatives(field.annotation))
    }
    bounded = {(kind.__name__, name) for kind, name, field in FIELDS if limits(field) is not None}
    assert numbers - bounded == set()
