"""Validation as pyinfra runs it: what it prints, what it counts, and its exit status."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.launch.stand_in import chat_engine, engine, send
from tests.unit.validation.certificate import self_signed
from tests.unit.validation.fakes import NVIDIA_SMI_HIDDEN, SYSTEMCTL, programs

ROOT = Path(__file__).parents[2]
UP = "127.0.0.1:8001"
SETTINGS = "ValidationSettings(load_s=2, load_concurrency=1, completion_timeout_s=60)"
HOST_DEPLOY = """
from pyinfra import host
from pyinfra.operations import server
from roles.checks.deploy import report_at_end
from roles.hardware.readings import NVIDIA
from roles.validation import PlannedReplica, ValidationSettings
from roles.validation.deploy import validate_host

settings = {settings}
report_at_end(host.state, settings.report_dir, {planned})
{before}
replica = PlannedReplica("chat-0", "llm@chat-0.service", "{url}", "m", (0, 1), 1, key="k")
validate_host(settings, [replica], NVIDIA)
"""
BALANCER_DEPLOY = """
from pyinfra import host
from roles.checks.deploy import report_at_end
from roles.validation import Endpoint, ValidationSettings
from roles.validation.deploy import validate_balancer

report_at_end(host.state, "reports", [host.name])
endpoint = Endpoint("{url}", "m", ("127.0.0.1:8001",), "nginx")
validate_balancer({settings}, endpoint, "k", {certificate!r})
"""


@dataclass
class Done:
    """How a run of pyinfra ended."""

    status: int
    stdout: str
    output: str
    folder: Path

    def checks(self) -> list[dict[str, str]]:
        return json.loads((self.folder / "reports/report.json").read_text())["checks"]


class Project:
    """A scratch project in which pyinfra runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = programs(folder, **{"nvidia-smi": NVIDIA_SMI_HIDDEN, "systemctl": SYSTEMCTL})

    def run(self, deploy: str, *flags: str, inventory: str = "@local") -> Done:
        (self.folder / "deploy.py").write_text(deploy)
        done = subprocess.run(
            [sys.executable, "-m", "pyinfra", inventory, "deploy.py", *flags],
            cwd=self.folder,
            env=os.environ | {"PATH": self.path, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        return Done(done.returncode, done.stdout, done.stdout + done.stderr, self.folder)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def url() -> Iterator[str]:
    with engine(chat_engine(replica=UP)) as url:
        yield url


def host_deploy(url: str, before: str = "", planned: str = "['@local']") -> str:
    return HOST_DEPLOY.format(url=url, before=before, planned=planned, settings=SETTINGS)


def test_a_second_look_changes_nothing_either(project: Project, url: str) -> None:
    for _ in range(2):
        done = project.run(host_deploy(url), "-y")
        assert done.status == 0, done.output
        assert "[@local] No changes" in done.output
        assert re.search(r"Grand total +1 +- +- +1\b", done.output)
        # The stand-in's processes are hidden, as in a container: that is a warning.
        assert "9 checks: 8 passed, 1 warned, 0 failed" in done.output
        assert done.output.index("Disconnecting") < done.output.index("--> Report:")
        assert len(done.checks()) == 9


def test_preparing_asks_nobody(project: Project) -> None:
    done = project.run(host_deploy("http://127.0.0.1:9"), "--dry")
    assert done.status == 0, done.output
    assert "--> Report:" not in done.output
    assert not (done.folder / "reports").exists()


def test_a_failed_check_fails_the_host_and_is_named(project: Project) -> None:
    with engine(send(500, "dead")) as url:
        done = project.run(host_deploy(url), "-y")
    assert done.status == 1
    assert "Validation failed: chat-0 completion: HTTP 500: dead" in done.output
    assert "5 checks: 2 passed, 1 warned, 2 failed" in done.output
    assert "Traceback" not in done.output


def test_the_key_is_never_printed(project: Project, url: str) -> None:
    deploy = host_deploy(url).replace('"k"', '"sk-secret"')
    done = project.run(deploy, "-y", "-vvv", "--debug")
    assert "HTTP 401" in done.output
    assert "sk-secret" not in done.output


def test_a_host_that_stopped_earlier_is_in_the_report(project: Project, url: str) -> None:
    before = "server.shell(name='Break', commands='false')"
    done = project.run(host_deploy(url, before, "['@local', 'gpu9']"), "-y")
    assert done.status == 1
    assert [check["evidence"] for check in done.checks()] == [
        "it stopped at “Break”",
        "it is not in the inventory",
    ]


def test_a_host_that_cannot_be_reached_is_in_the_report(project: Project, url: str) -> None:
    (project.folder / "inventory.py").write_text(
        "hosts = ['@local', ('gpu2', {'ssh_hostname': '127.0.0.1', 'ssh_port': 9}), 'gpu3']"
    )
    (project.folder / "config.py").write_text(
        "from pyinfra import config\nconfig.FAIL_PERCENT = 100"
    )
    flags = ("-y", "--exclude", "gpu3")
    deploy = host_deploy(url, planned="['gpu2', 'gpu3', '@local']")
    done = project.run(deploy, *flags, inventory="inventory.py")
    assert done.status == 1
    assert done.checks()[0]["evidence"] == "it could not be reached"
    assert {check["host"] for check in done.checks()} == {"gpu2", "@local"}
    assert "10 checks: 8 passed, 1 warned, 1 failed" in done.output


def test_no_wait_has_the_same_exit_status(project: Project) -> None:
    with engine(send(500, "dead")) as url:
        assert project.run(host_deploy(url), "-y", "--no-wait").status == 1


def test_json_stays_pure(project: Project, url: str) -> None:
    done = project.run(host_deploy(url), "-y", "--json")
    assert done.status == 0
    assert json.loads(done.stdout)


def test_the_endpoint_is_asked_from_here(project: Project, tmp_path: Path) -> None:
    _, context = self_signed(tmp_path)
    with engine(chat_engine(replica=UP), context) as url:
        path = str(tmp_path / "127.0.0.1.pem")
        deploy = BALANCER_DEPLOY.format(url=url, settings=SETTINGS, certificate=path)
        done = project.run(deploy, "-y", "-vvv", "--debug")
    assert done.status == 0, done.output
    assert "4 checks: 4 passed" in done.output
    assert "BEGIN CERTIFICATE" in done.output
    assert "PRIVATE KEY" not in done.output


def test_a_certificate_that_is_not_there_fails_the_balancer(project: Project) -> None:
    deploy = BALANCER_DEPLOY.format(
        url="https://127.0.0.1:9", settings=SETTINGS, certificate="/nowhere.pem"
    )
    done = project.run(deploy, "-y")
    assert done.status == 1
    assert "no certificate in /nowhere.pem" in done.output
