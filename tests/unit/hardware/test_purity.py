import subprocess
import sys

import pytest


@pytest.mark.parametrize("role", ["roles.hardware", "roles.models"])
def test_the_package_does_not_import_pyinfra(role: str):
    code = f"import sys, {role}; sys.exit(any(m.split('.')[0] == 'pyinfra' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
