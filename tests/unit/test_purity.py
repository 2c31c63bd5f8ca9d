"""What other roles may import of a role is pure code: it never pulls in pyinfra."""

import subprocess
import sys
from pathlib import Path

import pytest

ROLES = Path(__file__).parents[2] / "roles"
PACKAGES = sorted(
    ".".join(("roles", *file.parent.relative_to(ROLES).parts))
    for file in ROLES.rglob("__init__.py")
)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_does_not_import_pyinfra(package: str):
    code = (
        f"import sys, {package}; sys.exit(any(m.split('.')[0] == 'pyinfra' for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_role_is_a_package():
    folders = {file.parent.name for file in ROLES.glob("*/*.py")}
    assert {f"roles.{name}" for name in folders} <= set(PACKAGES)
