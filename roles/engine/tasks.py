"""Which task a model can do, whatever the engine. Pure."""

from roles.models import Model
from roles.plan import Task


def check_task(task: Task, model: Model) -> None:
    """ValueError where a model's files are made for another task; it says which."""
    if task == "generate" and not model.generates:
        other = "rerank" if model.classifies else "embed"
        raise ValueError(f"{model.name} generates no text by its files; set task {other}")
    if task == "embed" and model.classifies:
        raise ValueError(f"{model.name} scores texts by its files; set task rerank")
