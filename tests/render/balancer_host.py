"""A balancer below a folder: operations run there by real shells, on a real program."""

import base64
import io
import os
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyinfra.context import ctx_host, ctx_state

from roles.balancer import operations
from roles.balancer.facts import BalancerFacts
from roles.balancer.found import FoundBalancer
from roles.balancer.kinds import KINDS
from roles.host import HostFile, archive

from .balancer_programs import Program, moved, moved_back
from .balancer_server import program

SYSTEMCTL = """#!/bin/sh
case "$1" in
    reload) {reload} && echo reload >> {folder}/reloads;;
    is-active) echo active;;
    is-enabled) echo enabled;;
esac
"""
JOURNALCTL = "#!/bin/sh\ntail -n 5 {folder}/llm.access.log\n"


class BalancerHost:
    """Answers facts and runs the commands of operations, with a host's paths below `folder`."""

    name = "lb1"
    print_prefix = ""
    is_executing = True

    def __init__(self, folder: Path, program: Program):
        self.folder, self.program = folder, program
        self.warnings: list[str] = []
        (folder / "bin").mkdir()
        reload = program.reload.format(folder=folder)
        for name, text in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
            stub = folder / "bin" / name
            stub.write_text(text.format(folder=folder, reload=reload))
            stub.chmod(0o755)

    def noop(self, why: str) -> None:
        pass

    def log_styled(self, text: str, **_: Any) -> None:
        self.warnings.append(text)

    def get_fact(self, fact: Any, **arguments: Any) -> Any:
        done = self.shell(fact().command(**arguments))
        lines = moved_back(done.stdout, self.folder).splitlines()
        found = fact().process(lines)
        return self._as_on_a_host(found, **arguments) if fact is BalancerFacts else found

    def run(self, operation: Any, **arguments: Any) -> subprocess.CompletedProcess[str] | None:
        """The last command of an operation, run; None where it has none. It must succeed."""
        done = None
        with ctx_host.use(self), ctx_state.use(self):
            for command in operation._inner(**arguments):
                done = self.shell(command.bits[2], command.connector_arguments.get("_stdin", ""))
                assert done.returncode == 0, done.stderr
        return done

    def drain(self, *ids: str, owner: str = "operator", planned: Program | None = None) -> None:
        """Drain members, in a run that plans a program."""
        own = {"interrupted": tuple, "note_kept": lambda ids: None}
        self._change(operations.drain, ids, owner, planned, own)

    def undrain(self, *ids: str, owner: str = "operator") -> None:
        """End drains of members."""
        self._change(operations.undrain, ids, owner, None, {"proved": dict})

    def _change(
        self,
        operation: Any,
        ids: Sequence[str],
        owner: str,
        planned: Program | None,
        own: dict[str, Any],
    ) -> None:
        balancer = (planned or self.program).balancer
        self.run(operation, balancer=balancer, replicas=lambda: ids, owner=owner, run="r", **own)

    def shell(self, script: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a script that is meant for a host."""
        # As an operation has it: one quoted word.
        if script.startswith("'"):
            script = subprocess.run(
                ["sh", "-c", f"printf %s {script}"], capture_output=True, text=True, check=True
            ).stdout
        path = f"{self.folder}/bin:{Path(program(self.program.kind)).parent}:{os.environ['PATH']}"
        script = self._here(script).replace(" -o root -g root", "")
        return subprocess.run(
            ["sh", "-c", script],
            input=self._archive(stdin) if stdin else "",
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
        )

    @property
    def standing(self) -> FoundBalancer:
        """The balancer as a deploy finds it."""
        return self.get_fact(BalancerFacts, kind=self.program.kind)

    @property
    def reloads(self) -> int:
        """How often it was reloaded."""
        file = self.folder / "reloads"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def read(self, path: str) -> str:
        """The text of a file, by its path on a host."""
        return moved_back(Path(self._here(path)).read_text(), self.folder)

    def write(self, files: Sequence[HostFile]) -> None:
        """Have these files there, as a deploy has written them."""
        for file in files:
            path = Path(self._here(file.path))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._here(file.content))
            path.chmod(int(file.mode, 8))

    def _here(self, text: str) -> str:
        return moved(text, self.folder)

    def _archive(self, stdin: str) -> str:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(stdin))) as tar:
            texts = {f"/{m.name}": tar.extractfile(m).read().decode() for m in tar}  # type: ignore[union-attr]
        return archive(HostFile(self._here(path), self._here(text)) for path, text in texts.items())

    def _as_on_a_host(self, found: FoundBalancer, kind: str) -> FoundBalancer:
        files = {}
        for path, state in found.files.items():
            mode = state.split()[0]
            files[path] = HostFile(path, self.read(path), mode=mode).state
        return replace(
            found,
            packages=frozenset(KINDS[kind].packages),
            has_main_file=True,
            files=files,
        )
