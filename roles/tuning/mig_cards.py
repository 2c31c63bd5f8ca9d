"""The cards that can be sliced (MIG), their profiles, and which profiles fit together.

Sources: NVIDIA's MIG user guide ("Supported GPUs", "Supported MIG Profiles"), the default layouts
of NVIDIA/mig-parted, and the release notes of NVIDIA's GPU operator (B300, GB300).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from roles.hardware import Card


@dataclass(frozen=True)
class MigCard:
    """How a kind of card is sliced.

    `positions` maps a profile without its suffix to the memory slices where it may begin, and to
    the number that it takes. `suffixes` are the suffixes that a profile may have.
    """

    slices: int
    positions: dict[str, tuple[tuple[int, ...], int]]
    suffixes: tuple[str, ...]


def _seven_slices(one: int, double: int, three: int, seven: int) -> MigCard:
    """A card of 7 compute and 8 memory slices, by the GB in its profiles' names."""
    return MigCard(
        7,
        {
            f"1g.{one}gb": (tuple(range(7)), 1),
            f"1g.{double}gb": ((0, 2, 4, 6), 2),
            f"2g.{double}gb": ((0, 2, 4), 2),
            f"3g.{three}gb": ((0, 4), 4),
            f"4g.{three}gb": ((0,), 4),
            f"7g.{seven}gb": ((0,), 8),
        },
        ("+me",),
    )


def _equal_slices(slices: int, one: int, suffixes: tuple[str, ...]) -> MigCard:
    """A card of 2 or 4 slices, each with `one` GB."""
    sizes = [size for size in (1, 2, 4) if size <= slices]
    positions = {f"{n}g.{n * one}gb": (tuple(range(0, slices, n)), n) for n in sizes}
    return MigCard(slices, positions, suffixes)


_RTX = ("+gfx", "+me.all", "-me")
# By the names in the table of cards. None: the card can be sliced, but its profiles are unknown.
_CARDS: tuple[tuple[str, MigCard | None], ...] = (
    (r"A[18]00.*40GB", _seven_slices(5, 10, 20, 40)),
    (r"A[18]00.*80GB( PCIe)?|H[18]00( PCIe| 80GB HBM3)?", _seven_slices(10, 20, 40, 80)),
    (r"A100-SXM-64GB|H100 SXM5 64GB", None),
    (r"A30", _equal_slices(4, 6, ("+me",))),
    (r"H100 NVL", _seven_slices(12, 24, 47, 94)),
    (r"H100 SXM5 96GB|H20|GH200 480GB", _seven_slices(12, 24, 48, 96)),
    (r"H200( NVL)?|H20-3e", _seven_slices(18, 35, 71, 141)),
    (r"GH200 144G HBM3e", _seven_slices(18, 36, 72, 144)),
    (r"B200", _seven_slices(23, 45, 90, 180)),
    (r"GB200", _seven_slices(24, 47, 95, 189)),
    (r"B300 SXM6 AC", _seven_slices(34, 67, 135, 269)),
    (r"GB300", _seven_slices(35, 70, 139, 278)),
    (r"RTX PRO 6000 Blackwell .*Edition", _equal_slices(4, 24, _RTX)),
    (r"RTX PRO 5000 Blackwell", _equal_slices(2, 24, _RTX)),
    (r"RTX PRO 4500 Blackwell", _equal_slices(2, 16, _RTX)),
    (r"RTX PRO 5000 72GB Blackwell", None),
)


def layout_problem(card: Card | None, profiles: Sequence[str]) -> str | None:
    """Why a card cannot be sliced so; None if it can, or if that is unknown."""
    if card is None:
        return None
    name = card.name.removeprefix("NVIDIA ")
    matches = [kind for pattern, kind in _CARDS if re.fullmatch(pattern, name)]
    if not matches:
        return f"{card.name} cannot be sliced (MIG)"
    return _problem(card, matches[0], profiles) if matches[0] else None


def _problem(card: Card, kind: MigCard, profiles: Sequence[str]) -> str | None:
    known = ", ".join(kind.positions)
    for profile in profiles:
        base, suffix = split_profile(profile)
        if base not in kind.positions:
            return f"{card.name} has no profile {profile}; choose among {known}"
        if suffix and suffix not in kind.suffixes:
            return f"{card.name} has no {suffix} profile; choose among {known}"
    if sum("+me" in profile for profile in profiles) > 1:
        return f"{card.name} has its media engines once: only one slice can have them (+me)"
    bases = [split_profile(profile)[0] for profile in profiles]
    if sum(int(base[0]) for base in bases) > kind.slices or not _find_places(kind, by_size(bases)):
        listed = ", ".join(profiles)
        return (
            f"{listed} do not fit {card.name} together; it has {kind.slices} slices, and the "
            "largest "
            "take whole halves of its memory"
        )
    return None


def _find_places(kind: MigCard, bases: Sequence[str], taken: frozenset[int] = frozenset()) -> bool:
    """Whether all profiles fit into the memory slices."""
    if not bases:
        return True
    starts, size = kind.positions[bases[0]]
    spans = [frozenset(range(start, start + size)) for start in starts]
    return any(_find_places(kind, bases[1:], taken | span) for span in spans if not span & taken)


def split_profile(profile: str) -> tuple[str, str]:
    """A profile and its suffix: "1g.10gb+me" is ("1g.10gb", "+me")."""
    base = re.match(r"[^+-]*", profile)
    assert base is not None
    return base[0], profile[base.end() :]


def by_size(profiles: Sequence[str]) -> tuple[str, ...]:
    """The profiles with the largest first: the driver lists them so, and finds a place for each.

    The result does not depend on the given order. Names that are not profiles come last.
    """

    def size(profile: str) -> tuple[int, int, str]:
        found = re.search(r"([0-9])g\.([0-9]{1,4})gb", profile)
        return (-int(found[1]), -int(found[2]), profile) if found else (0, 0, profile)

    return tuple(sorted(profiles, key=size))
