"""The command-line options of llama-server for a planned replica."""

from roles.engine.deployment import Served
from roles.engine.gguf.context import Context
from roles.engine.params import Argument
from roles.plan import Replica


def options_of(replica: Replica, service: Served, address: str) -> dict[str, str | None]:
    """Options and their values in order; None for an option without a value.

    llama-server's own fitting is off: a replica starts as planned or not at all. The key is not
    among them: its file is the unit's credential.
    """
    context = Context(service.min_concurrency, replica.max_model_len)
    options: dict[str, str | None] = {
        "--model": service.weights,
        # It takes any name, and lists these.
        "--alias": ",".join([service.model, *(one.name for one in service.adapters)]),
        "--host": address,
        "--port": str(replica.port),
        "--ctx-size": str(context.context_size),
        "--parallel": str(context.slots),
        "--n-gpu-layers": "all",
        "--fit": "off",
    }
    if replica.shape.tensor_split:
        options["--split-mode"] = "layer"
        options["--tensor-split"] = split_text(replica.shape.tensor_split)
    for one in service.adapters:
        options["--lora"] = one.path
    options["--metrics"] = None
    for name, value in service.arguments.items():
        option, text = _option(name, value)
        options[option] = text
    return options


def split_text(split: tuple[float, ...]) -> str:
    """The value of `--tensor-split`."""
    return ",".join(f"{part:g}" for part in split)


def _option(name: str, value: Argument) -> tuple[str, str | None]:
    if value is True:
        return f"--{name}", None
    if value is False:
        return f"--no-{name.removeprefix('no-')}", None
    return f"--{name}", str(value)
