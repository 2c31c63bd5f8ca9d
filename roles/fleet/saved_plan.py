"""Whether the plan of an inventory is the one that was saved beside it."""

from collections.abc import Sequence
from pathlib import Path

from roles.declaration import saved_plan, saved_plan_of
from roles.plan import Plan, plan_differences


def saved_plan_problem(inventory: Path, plans: Sequence[Plan]) -> str | None:
    """Why a deploy of these plans is refused, and what to do; None where nothing is saved, or the
    same. DeclarationError where what is saved is no plan."""
    text = saved_plan(inventory)
    differences = plan_differences(text, plans) if text is not None else []
    if not differences:
        return None
    return (
        f"the plan is not the saved one ({saved_plan_of(inventory)}): {'; '.join(differences)}. "
        "Review it and save it with python -m roles.topology fleet INVENTORY --save, or deploy "
        "with --data accept_plan=true"
    )
