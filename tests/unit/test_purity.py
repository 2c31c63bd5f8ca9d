"""What other roles may import of a role is pure code: it never pulls in pyinfra."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROLES = Path(__file__).parents[2] / "roles"
PACKAGES = sorted(
    ".".join(("roles", *file.parent.relative_to(ROLES).parts))
    for file in ROLES.rglob("__init__.py")
)
HOLDS_STATE = {
    # Programs that run on a host by themselves; each is sent with its task in this place.
    "host/probe.py": ["TASK"],
    "interconnect/all_reduce.py": ["TASK"],
}
IMPORT_EACH = """
import importlib, sys
sys.modules["pyinfra"] = None
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: {error}")
"""


def test_no_package_imports_pyinfra():
    command = [sys.executable, "-c", IMPORT_EACH, *PACKAGES]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_every_role_is_a_package():
    folders = {file.parent.name for file in ROLES.glob("*/*.py")}
    assert {f"roles.{name}" for name in folders} <= set(PACKAGES)


def mutable_state(tree: ast.Module) -> list[str]:
    """Names of a module that hold what changes while a program runs: globals that functions assign,
    empty containers, objects of dataclasses that are not frozen, and what functions change."""
    bodies = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    inner = [node for body in bodies for node in ast.walk(body)]
    found = [name for node in inner if isinstance(node, ast.Global) for name in node.names]
    changed = {name for node in inner for name in changes(node)}
    classes = [node for node in bodies if isinstance(node, ast.ClassDef)]
    thawed = {node.name for node in classes if is_mutable_dataclass(node)}
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            if is_to_be_filled(node.value, thawed) or name in changed:
                found.append(name)
    return found


def is_mutable_dataclass(node: ast.ClassDef) -> bool:
    made = [ast.unparse(one) for one in node.decorator_list]
    return any(one.startswith("dataclass") and "frozen=True" not in one for one in made)


def is_to_be_filled(value: ast.expr, thawed: set[str]) -> bool:
    """Whether a value makes sense only if it is changed later."""
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.List | ast.Set):
        return not value.elts
    called = value.func if isinstance(value, ast.Call) else None
    makers = {"dict", "list", "set", "defaultdict", *thawed}
    return isinstance(called, ast.Name) and called.id in makers and not value.args  # type: ignore


def changes(node: ast.AST) -> list[str]:
    """Names of which a node changes what they are bound to."""
    changed: list[ast.expr] = []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        changed = [node.func.value] if node.func.attr in CHANGING else []
    elif isinstance(node, ast.Assign | ast.AugAssign | ast.Delete):
        targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
        changed = [one.value for one in targets if isinstance(one, ast.Subscript | ast.Attribute)]
    return [one.id for one in changed if isinstance(one, ast.Name)]


CHANGING = {"append", "extend", "add", "update", "pop", "setdefault", "clear", "remove", "discard"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("known = {}", ["known"]),
        ("runs: list[str] = []", ["runs"]),
        ("seen = set()", ["seen"]),
        ("def f():\n    global now\n    now = 1", ["now"]),
        ("table = {1: 2}\ndef f():\n    table[3] = 4", ["table"]),
        ("table = [1]\ndef f():\n    table.append(2)", ["table"]),
        ("@dataclass\nclass A: pass\na = A()", ["a"]),
        ("@dataclass(frozen=True)\nclass A: pass\na = A()", []),
        ("table = {1: 2}\nnames = [3]\ndef f():\n    return table[1]", []),
        ("table = {1: 2}\ntable[3] = 4", []),
    ],
)
def test_state_is_found(text: str, names: list[str]):
    assert mutable_state(ast.parse(text)) == names


# What serves any engine names none: what an engine wants is said in its own room.
ENGINE_NEUTRAL = (
    *("checks", "host", "rolling", "launch", "balancer", "validation", "preflight", "reboot"),
    *("interconnect", "tuning", "fleet", "stages", "plan", "driver", "watchdog"),
)
ENGINES = re.compile(r"vllm|llama|sglang", re.IGNORECASE)
# Reads hosts in the state of before several engines, which are all of one.
OF_BEFORE = {"host/legacy.py"}


def test_what_serves_any_engine_names_none():
    folders = [*(ROLES / role for role in ENGINE_NEUTRAL), ROLES.parent / "templates"]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    named = {
        str(file.relative_to(ROLES.parent)).removeprefix("roles/")
        for file in files
        if "__pycache__" not in file.parts and ENGINES.search(file.read_text(encoding="utf-8"))
    }
    assert named == OF_BEFORE


def spoken(tree: ast.Module) -> str:
    """The text of a module that a program uses: neither comments nor docstrings, which may name an
    engine as the source of a fact."""
    nodes = list(ast.walk(tree))
    unused = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = (node for node in nodes if isinstance(node, ast.Constant) and id(node) not in unused)
    return "\n".join(str(node.value) for node in texts)


def test_what_reads_hardware_tells_nobody_of_an_engine():
    files = (ROLES / "hardware").rglob("*.py")
    texts = {file.name: spoken(ast.parse(file.read_text(encoding="utf-8"))) for file in files}
    assert [name for name, text in texts.items() if ENGINES.search(text)] == []


def test_no_module_holds_state_that_changes():
    found = {
        str(file.relative_to(ROLES)): names
        for file in ROLES.rglob("*.py")
        if (names := mutable_state(ast.parse(file.read_text(encoding="utf-8"))))
    }
    assert found == HOLDS_STATE
