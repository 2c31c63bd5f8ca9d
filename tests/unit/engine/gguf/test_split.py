"""Where layers lie for the numbers of --tensor-split, and numbers that fit."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.engine.gguf.context import Context
from roles.engine.gguf.memory import device_parts
from roles.engine.gguf.split import layer_counts, parts_of, tensor_split
from roles.engine.params import GIB
from tests.gguf_models import shape

CONTEXT = Context(4, 8192)
GEMMA = shape("gemma-3-12b-it")


@pytest.mark.parametrize(
    ("split", "layers", "counts"),
    [
        ((1,), 32, (33,)),
        # 0.75 of 33 is 24.75: the 25th begins before it.
        ((3, 1), 32, (25, 8)),
        ((3, 1), 80, (61, 20)),
        ((2, 1, 1), 32, (17, 8, 8)),
        ((22.5, 8.6), 48, (36, 13)),
        ((1, 0), 32, (33, 0)),
    ],
)
def test_layers_lie_as_llama_cpp_puts_them(
    split: tuple[float, ...], layers: int, counts: tuple[int, ...]
):
    assert layer_counts(split, layers) == counts


@given(counts=st.lists(st.integers(1, 130), min_size=1, max_size=16))
def test_whole_numbers_put_as_many_layers(counts: list[int]):
    assert layer_counts(counts, sum(counts) - 1) == tuple(counts)


@given(rooms=st.lists(st.floats(0.5, 40), min_size=2, max_size=6), slots=st.integers(1, 8))
def test_a_split_fits_every_card_or_there_is_none(rooms: list[float], slots: int):
    context = Context(slots, 8192)
    sizes = [room * GIB for room in rooms]
    found = tensor_split(GEMMA, context, sizes)
    if found is None:
        whole = sum(part.total for part in parts_of(GEMMA, context, (1.0,)))
        # Cards that hold it twice over leave no excuse.
        assert min(sizes) < 2 * whole / len(sizes) + 2 * GIB
        return
    parts = parts_of(GEMMA, context, found)
    assert all(part.total <= room for part, room in zip(parts, sizes, strict=True))
    assert sum(part.layers for part in parts) == len(GEMMA.every_layer)


def test_rooms_are_the_numbers_where_they_will_do():
    assert tensor_split(GEMMA, CONTEXT, [22.5 * GIB, 22.6 * GIB]) == (22.5, 22.6)


def test_layers_are_counted_where_rooms_would_not_fit():
    """The output of a large vocabulary fills a small last card: it gets fewer layers."""
    rooms = [22.5 * GIB, 5.2 * GIB]
    by_room = layer_counts((22.5, 5.2), 48)
    assert device_parts(GEMMA, CONTEXT, by_room)[1].total > rooms[1]
    found = tensor_split(GEMMA, CONTEXT, rooms)
    assert found is not None and sum(found) == 49
    assert layer_counts(found, 48)[1] < by_room[1]


def test_too_many_cards_or_none_with_room():
    assert tensor_split(GEMMA, CONTEXT, [GIB * 50, 0.0]) is None
    assert tensor_split(GEMMA, CONTEXT, [GIB] * 60) is None
    assert list(accumulate(layer_counts((1,) * 60, 48)))[-1] == 49
