"""Compares the plan of an inventory with the one that was saved beside it."""

from collections.abc import Sequence
from pathlib import Path

from roles.declaration import saved_plan, saved_plan_of
from roles.plan import Plan, plan_differences


def saved_plan_problem(inventory: Path, plans: Sequence[Plan]) -> str | None:
    """Why a deploy of these plans is refused, with a remedy; None where no plan is saved, or an
    equal one. DeclarationError where the saved plan is damaged."""
    text = saved_plan(inventory)
    differences = plan_differences(text, plans) if text is not None else []
    if not differences:
        return None
    return (
        f"the plan is not the saved one ({saved_plan_of(inventory)}): {'; '.join(differences)}. "
        "Review it and save it with python -m roles.topology fleet INVENTORY --save, or deploy "
        "with --data accept_plan=true"
    )
