"""The driver on a host, and the packages that its repositories offer."""

import base64
import shlex
from collections.abc import Sequence

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from roles.checks import clean
from roles.driver.packages import numbers
from roles.driver.scripts import APT, DNF, refusal_command
from roles.driver.state import PART, DriverState, parse_state
from roles.hardware import PART as HARDWARE
from roles.hardware import parse_report
from roles.host.facts import reading
from roles.host.question import parse_answers, question


class DriverReport(FactBase[DriverState | None]):
    """Driver, packages, modules, units and disks of a host, asked as root in one command.

    For a host that is asked for nothing else, or again after a change."""

    @staticmethod
    def default() -> DriverState | None:
        return None

    def command(self) -> str:
        return question([HARDWARE, PART])

    def process(self, output: list[str]) -> DriverState:
        with reading("the host's driver cannot be read"):
            answers = parse_answers(output)
            report = parse_report(answers.get(HARDWARE.name, {}))
            return parse_state(answers.get(PART.name, {}), report)


class AvailablePackages(FactBase[tuple[dict[str, list[str]], str]]):
    """The versions of packages in a host's repositories, newest first, and errors of the refresh.

    With `refresh` the repositories' indexes are read again.
    """

    @staticmethod
    def default() -> tuple[dict[str, list[str]], str]:
        return {}, ""

    def command(
        self, packages: Sequence[str], stream: str | None = None, refresh: bool = False
    ) -> str:
        names = " ".join(shlex.quote(name) for name in packages)
        # dnf hides packages of a stream that is not enabled; their versions tell the streams apart.
        modular = "--disable-modular-filtering " if stream else ""
        form = shlex.quote("%{name} | %{version}-%{release} | %{arch}")
        update = f"{APT} update 2>&1 </dev/null | sed -n 's/^\\(E\\|W\\|Err\\):/error &/p'; "
        error_pattern = "s/^.*\\(Error:\\|Status code\\|Curl error\\)/error &/p"
        metadata = f"{DNF} makecache --refresh 2>&1 </dev/null | sed -n '{error_pattern}'; "
        return (
            f"export LC_ALL=C; if command -v apt-cache >/dev/null; then {update if refresh else ''}"
            f"apt-cache madison {names} 2>/dev/null; else {metadata if refresh else ''}"
            f"dnf -q repoquery {modular}--available --qf {form} {names} 2>/dev/null; fi; echo asked"
        )

    def process(self, output: list[str]) -> tuple[dict[str, list[str]], str]:
        with reading("the host's packages"):
            return _versions(output)


class Refusal(FactBase[str | None]):
    """Why apt would not install packages together; None if it would. Nothing changes."""

    @staticmethod
    def default() -> str | None:
        return None

    def command(self, packages: Sequence[str]) -> str:
        return refusal_command(packages)

    def process(self, output: list[str]) -> str | None:
        return None if output[-1].strip() == "fits" else clean(" ".join(map(str.strip, output)))


class FetchedKey(FactBase[tuple[bool, str]]):
    """Whether the host could fetch a repository's key, and the key in base64 or the reason.

    apt has its own program for this: a bare host may lack curl and wget.
    """

    @staticmethod
    def default() -> tuple[bool, str]:
        return False, "the host did not answer"

    def command(self, url: str) -> str:
        quoted = shlex.quote(url)
        return (
            "t=$(mktemp -d) && "
            "if [ -x /usr/lib/apt/apt-helper ]; then "
            f'/usr/lib/apt/apt-helper -o Acquire::Retries=2 download-file {quoted} "$t/key"; '
            f'else curl -fsSL --retry 2 --max-time 60 -o "$t/key" {quoted}; fi >"$t/said" 2>&1; '
            'if [ -s "$t/key" ]; then echo "key $(head -c 70000 "$t/key" | base64 | tr -d "\\n")"; '
            'else echo "failed $(tail -n 3 "$t/said" | tr "\\n" " ")"; fi; rm -rf "$t"'
        )

    def process(self, output: list[str]) -> tuple[bool, str]:
        for line in output:
            word, _, rest = line.partition(" ")
            if word == "key" and not _is_base64(rest.strip()):
                return False, "it came incomplete"
            if word in ("key", "failed"):
                return word == "key", clean(rest)
        raise FactProcessError("the host did not say whether it fetched the key")


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def _versions(output: list[str]) -> tuple[dict[str, list[str]], str]:
    found: dict[str, list[str]] = {}
    errors = [line.removeprefix("error ") for line in output if line.startswith("error ")]
    for line in output:
        if line.startswith("error "):
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) >= 3 and fields[0] and fields[1]:
            found.setdefault(fields[0], []).append(fields[1])
            # dnf names a kernel's package by name, version and architecture.
            whole = f"{fields[0]}-{fields[1]}.{fields[2]}"
            found.setdefault(whole, []).append(fields[1])
    versions = {
        name: sorted(dict.fromkeys(several), key=numbers, reverse=True)
        for name, several in found.items()
    }
    return versions, "\n".join(map(clean, dict.fromkeys(errors)))
