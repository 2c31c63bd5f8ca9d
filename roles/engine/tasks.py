"""Which task a model can do, whatever the engine. Pure."""

from roles.models import Model
from roles.plan import Task


def usual_task(model: Model) -> Task:
    """The task that a model's files are made for."""
    if model.generates:
        return "generate"
    return "rerank" if model.classifies else "embed"


def check_task(task: Task, model: Model) -> None:
    """ValueError where a model's files are made for another task; it says which."""
    if task == "generate" and not model.generates:
        raise ValueError(
            f"{model.name} generates no text by its files; set task {usual_task(model)}"
        )
    if task == "embed" and model.classifies:
        raise ValueError(f"{model.name} scores texts by its files; set task rerank")
