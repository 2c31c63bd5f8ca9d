"""The first start of a balancer whose package has started it already."""

import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from roles.balancer.haproxy import scripts as haproxy
from roles.balancer.nginx import scripts as nginx


@pytest.mark.parametrize("scripts", [nginx, haproxy])
def test_one_that_its_package_started_loads_our_files(
    scripts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """systemd as it is: starting what runs does nothing, a restart reads the files."""
    loaded = tmp_path / "loaded"
    monkeypatch.setattr(scripts, "LOADED", str(loaded))
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\n[ "$1" != restart ] || touch {tmp_path}/read\n')
    systemctl.chmod(0o755)
    script = f"PATH={tmp_path}:$PATH; {scripts.start_script()}"
    subprocess.run(["sh", "-c", script], check=True)
    assert (tmp_path / "read").exists() and loaded.exists()
