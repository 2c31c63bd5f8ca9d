"""A role uses only the roles above it in the list, and only what they offer."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROLES = Path(__file__).parents[2] / "roles"
# From the ground up.
ORDER = (
    *("checks", "host", "rolling", "secrets", "hardware", "models", "plan", "engine", "topology"),
    *("driver", "tuning", "preflight", "interconnect", "reboot", "weights", "launch", "balancer"),
    *("validation", "watchdog", "benchmark", "monitoring", "report"),
    *("declaration", "fleet", "stages"),
)
# What a role offers beside its `__init__`, which is pure: these import pyinfra.
OFFERED = {"facts", "operations", "deploy", "outcome"}
# Of the base of all roles: the paths on a host, the one question to it, and the jinja environment.
OFFERED_BY_HOST = {"paths", "question", "templates"}
# Importers and what they import against the rule: none. Where one comes, say what is to be done.
UPWARD: set[tuple[str, str]] = set()
INSIDE = {
    # What an engine offers the planner; its `__init__` is what it offers to who deploys.
    ("topology", "roles.engine.params"),
    ("topology", "roles.engine.calibration"),
    ("topology", "roles.engine.engine"),
    ("topology", "roles.engine.planning"),
    ("topology", "roles.engine.speculation"),
    ("topology", "roles.engine.tasks"),
    # Programs that are sent to hosts import each other by their modules.
    ("launch", "roles.host.legacy"),
    ("launch", "roles.host.probe"),
    ("watchdog", "roles.host.probe"),
    ("launch", "roles.host.serving"),
    ("validation", "roles.host.probe"),
    # What imports pyinfra cannot be offered by an `__init__`.
    ("fleet", "roles.declaration.inventory"),
    ("stages", "roles.declaration.inventory"),
    ("stages", "roles.fleet.checked"),
    ("stages", "roles.host.connection"),
    # The two ways to read an inventory file: only one of them needs pyinfra.
    ("fleet", "roles.declaration.plain"),
}


def imports() -> Iterator[tuple[str, str]]:
    """Each role with each module of another role that it imports, but for its entry point."""
    for file in sorted(ROLES.rglob("*.py")):
        role = file.relative_to(ROLES).parts[0]
        if file.name == "__main__.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for module in modules(node):
                parts = module.split(".")
                if parts[0] == "roles" and len(parts) > 1 and parts[1] != role:
                    yield role, module


def modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module == "roles":
        return [f"roles.{alias.name}" for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


FOUND = set(imports())


def test_every_role_has_its_place():
    assert {file.parent.relative_to(ROLES).parts[0] for file in ROLES.glob("*/*.py")} <= set(ORDER)


def test_arrows_point_up_the_list():
    upward = {
        (role, module.split(".")[1])
        for role, module in FOUND
        if ORDER.index(module.split(".")[1]) > ORDER.index(role)
    }
    # An exception that is needed no more has to go as well.
    assert upward == UPWARD


def offered(role: str) -> set[str]:
    return OFFERED | OFFERED_BY_HOST if role == "host" else OFFERED


def test_roles_use_what_others_offer():
    inside = {
        (role, module)
        for role, module in FOUND
        if len(parts := module.split(".")) > 2
        and (len(parts) > 3 or parts[2] not in offered(parts[1]))
    }
    assert inside == INSIDE
