"""The package as another repository has it: a wheel of all that the roles need, and no checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INVENTORY = """
from roles.fleet.inventory import check

gpu_hosts = [("box", {"ssh_hostname": "192.0.2.21", "llm": {"gpus": "2x NVIDIA L40S"}})]
balancers = ["box"]
all = (
    ["box"],
    {
        "llm": {
            "services": [
                {"name": "chat", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
            ],
            "balancer": {"port": 8443, "api_key_file": "secrets/api.key"},
            "driver": {"install": "never"},
        }
    },
)
check(__file__)
"""
WHERE = """
import deploys, roles, roles.fleet.command_line, roles.host.templates
print(roles.__file__, deploys.__file__, roles.fleet.command_line.DEPLOYS, sep="\\n")
print(roles.host.templates.TEMPLATES)
"""
PYINFRA = "import sys; from pyinfra_cli.main import main; sys.exit(main())"


def tracked(*folders: str) -> list[Path]:
    """Files that git has, or would take, below these folders; links themselves."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [Path(name) for name in listed.split("\0") if name]
    return [file for file in files if os.path.lexists(ROOT / file)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from nothing but what git has."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for file in tracked("roles", "deploys", "templates", "pyproject.toml", "README.md", "LICENSE"):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, source / file, follow_symlinks=False)
    offline = ("--no-deps", "--no-build-isolation", "--check-build-dependencies")
    pip("wheel", *offline, "--wheel-dir", str(built), str(source))
    (found,) = built.glob("*.whl")
    return found


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--no-input", *arguments]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


class Repository:
    """Another repository with the package in its virtual environment."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self.python = folder / ".venv/bin/python"
        venv = ["venv", "--without-pip", "--symlinks", str(folder / ".venv")]
        subprocess.run([sys.executable, "-m", *venv], check=True)
        pip("--python", str(self.python), "install", "--no-deps", "--no-compile", str(wheel))
        (self.packages / "dependencies.pth").write_text(
            "\n".join(one for one in sys.path if one.endswith("site-packages"))
        )
        self.write("config.py", (ROOT / "config.py").read_text())
        self.write("inventories/site.py", INVENTORY)
        self.write("secrets/api.key", "k" * 32).chmod(0o600)
        (folder / "deploys").symlink_to(self.run("-m", "deploys").stdout.strip())

    @property
    def packages(self) -> Path:
        version = sysconfig.get_python_version()
        return self.folder / f".venv/lib/python{version}/site-packages"

    def write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def run(
        self, *arguments: str, status: int = 0, path: Sequence[Path] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Python with these arguments, from the repository's root; it ends with this status."""
        done = subprocess.run(
            [str(self.python), *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def pyinfra(self, *arguments: str, status: int = 0) -> str:
        """What pyinfra prints."""
        return self.run("-c", PYINFRA, *arguments, "-y", status=status).stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Repository:
    return Repository(tmp_path_factory.mktemp("repository"), wheel)


def test_the_wheel_has_every_file_and_no_other(wheel: Path):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {file.as_posix() for file in tracked("roles", "deploys") if file.name != "templates"}
    templates = {f"roles/{file}" for file in tracked("templates")}
    assert names == files | templates


def test_nothing_comes_from_the_checkout(repository: Repository):
    lines = repository.run("-c", WHERE).stdout.split()
    packages = repository.packages.resolve()
    assert lines and all(Path(line).resolve().is_relative_to(packages) for line in lines)
    assert (Path(lines[-1]) / "nginx/llm.conf.j2").is_file()


def test_a_fleet_is_planned_and_its_plan_saved_beside_the_inventory(repository: Repository):
    done = repository.run("-m", "roles.topology", "fleet", "inventories/site.py", "--save")
    saved = repository.folder / "inventories/plans/site.yaml"
    assert "chat-0" in done.stdout and "chat-0" in saved.read_text()
    saved.unlink()


def test_a_lock_can_be_made(repository: Repository):
    assert "REQUIREMENT" in repository.run("-m", "roles.engine", "lock", "--help").stdout.upper()


def test_a_wrong_inventory_is_refused(repository: Repository):
    repository.write("inventories/wrong.py", INVENTORY.replace("4096", "True"))
    deploy = repository.packages / "deploys/llm.py"
    printed = repository.pyinfra("inventories/wrong.py", str(deploy), status=1)
    assert "services[0].max_model_len: " in printed and "Connecting" not in printed


def test_without_our_config_nothing_is_begun(repository: Repository):
    arguments = ("inventories/site.py", "deploys/llm.py", "--config", "gone.py")
    printed = repository.pyinfra(*arguments, status=1)
    assert "gone.py: " in printed and "configure()" in printed and "Connecting" not in printed


def test_this_machine_is_asked_and_compared(repository: Repository):
    """By commands that pyinfra really runs; no machine has seven of these."""
    here = INVENTORY.replace('"box", {"ssh_hostname": "192.0.2.21", ', '"@local", {')
    here = here.replace('"box"', '"@local"').replace("2x NVIDIA", "7x NVIDIA")
    repository.write("inventories/here.py", here)
    printed = repository.pyinfra("inventories/here.py", "deploys/plan.py", status=1)
    (verdict,) = (line for line in printed.splitlines() if line.startswith("@local  FAILED"))
    assert "7x NVIDIA L40S" in verdict


def test_a_fleet_is_deployed(repository: Repository, tmp_path: Path):
    """By pyinfra's own program over a host that is not there: see `simulated_run`."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    scenario = repository.write("scenario.json", "{}")
    program = ("-m", "tests.render.simulated_run", str(scenario))
    done = repository.run(*program, "inventories/site.py", "deploys/llm.py", "-y", path=[tmp_path])
    assert "Nothing changed. 2 of 2 replicas serve." in done.stderr
    report = json.loads((repository.folder / "reports/report.json").read_text())
    assert report["checks"] and report["summary"]["fail"] == 0
