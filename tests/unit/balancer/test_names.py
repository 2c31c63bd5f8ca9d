"""A balancer's program is named in its own folder and in the two registries, and nowhere else."""

import re
from pathlib import Path

from roles.balancer.kinds import KINDS
from roles.balancer.programs import TEMPLATES

ROOT = Path(__file__).parents[3]
REGISTRIES = {"roles/balancer/kinds.py", "roles/balancer/programs.py"}
# Users of a system have a program's name, too.
USERS = {"roles/launch/settings.py"}


def named_in() -> set[str]:
    """The files of roles, deploys and templates that name a program, outside of its folders."""
    names = re.compile("|".join(KINDS), re.IGNORECASE)
    own = {ROOT / parent / kind for parent in ("roles/balancer", "templates") for kind in KINDS}
    places = [ROOT / folder for folder in ("roles", "deploys", "templates")]
    files = [file for place in places for file in place.rglob("*") if file.is_file()]
    return {
        str(file.relative_to(ROOT))
        for file in files
        if "__pycache__" not in file.parts and not own.intersection(file.parents)
        if names.search(file.read_text(encoding="utf-8"))
    }


def test_the_registries_alone_name_programs():
    assert named_in() - USERS == REGISTRIES


def test_the_registries_agree():
    assert list(KINDS) == list(TEMPLATES) == [one.kind for one in KINDS.values()]
