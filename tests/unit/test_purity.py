"""What other roles may import of a role is pure code: it never pulls in pyinfra."""

import subprocess
import sys
from pathlib import Path

ROLES = Path(__file__).parents[2] / "roles"
PACKAGES = sorted(
    ".".join(("roles", *file.parent.relative_to(ROLES).parts))
    for file in ROLES.rglob("__init__.py")
)
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
