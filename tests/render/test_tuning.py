"""The files that set a host's GPUs, whole, read by systemd and a shell."""

import shutil
import subprocess
from pathlib import Path

import pytest

from roles.tuning import TuningSettings
from roles.tuning.render import SCRIPT, UNIT, gpu_files
from roles.tuning.scripts import check_script
from tests.render.test_launch import EXPECTED, needs
from tests.render.test_launch import rendered as engine_files


def rendered(**message) -> dict[str, str]:
    settings = TuningSettings.model_validate(message)
    return {file.path: file.content for file in gpu_files(settings)}


@pytest.mark.parametrize("path", [SCRIPT, UNIT])
def test_whole_files(path: str):
    mig = {1: ["1g.10gb", "3g.40gb", "1g.10gb+me"], 0: ["7g.80gb"]}
    files = rendered(power_limit_w=500, mig=mig)
    assert files[path] == (EXPECTED / Path(path).name).read_text()


def test_nothing_is_written_where_nothing_is_set():
    assert rendered() == {} and rendered(dev_shm_gib=16) == {}
    assert "sliced 0" not in rendered(power_limit_w=300)[SCRIPT]
    assert "power_limit_w=" not in rendered(mig={0: ["7g.80gb"]})[SCRIPT]


@pytest.mark.parametrize("device", ["cuda", "rocm"])
def test_no_unit_shuts_out_the_devices_of_gpus(device: str):
    """ProtectClock= is among them: systemd/systemd issue 18142, mended in 253."""
    files = engine_files(device)
    engine = "".join(text for path, text in files.items() if "unit" in path or "@" in path)
    keys = {line.partition("=")[0] for line in (engine + rendered(power_limit_w=100)[UNIT]).split()}
    shut = {"ProtectClock", "PrivateDevices", "DeviceAllow", "DevicePolicy", "RootImage"}
    assert keys & shut == set()


@pytest.mark.parametrize(
    ("path", "wrong", "good"),
    [
        (UNIT, "", True),
        (UNIT, "\n[Service]\nNoNewPrivilege=yes\n", False),
        (UNIT, "\n[Service]\nTimeoutStartSec=soon\n", False),
        (SCRIPT, "if true; then\n", False),
    ],
)
def test_the_check_lets_only_good_files_through(tmp_path: Path, path: str, wrong: str, good: bool):
    needs("systemd-analyze")
    for name, text in rendered(power_limit_w=500).items():
        (tmp_path / name[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name[1:]).write_text(text + (wrong if name == path else ""))
    shell = shutil.which("dash") or "sh"
    done = subprocess.run(
        [shell, "-euc", f"STAGE={tmp_path}\n( {check_script()} )"], capture_output=True, text=True
    )
    assert (done.returncode == 0) is good, done.stdout + done.stderr
