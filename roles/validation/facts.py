"""Facts that validation reads on a host."""

import shlex

from pyinfra.api import FactBase

from roles.host.facts import reading
from roles.validation.observations import HostObservations, parse_observations


class Observations(FactBase[HostObservations | None]):
    """The output of the host program, which comes on `_stdin`; None where it gave no answer."""

    @staticmethod
    def default() -> HostObservations | None:
        return None

    def command(self) -> str:
        return "python3 -"

    def process(self, output: list[str]) -> HostObservations | None:
        with reading("not the output of the host program"):
            return parse_observations(output[-1])


class Certificates(FactBase[str]):
    """The certificates in a PEM file, or ""; never a key, which the file may hold too."""

    @staticmethod
    def default() -> str:
        return ""

    def command(self, path: str) -> str:
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        return f"sed -n '/{begin}/,/{end}/p' {shlex.quote(path)}"
