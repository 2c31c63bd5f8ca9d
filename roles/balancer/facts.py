"""What is on a balancer, and what its replicas answer it."""

import json
from typing import Any

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from roles.balancer.certificate import names_command, parse_names
from roles.balancer.nginx import state_command


class CertificateNames(FactBase[frozenset[str]]):
    """The names of a certificate that is there and not about to expire; else none."""

    @staticmethod
    def default() -> frozenset[str]:
        return frozenset()

    def requires_command(self, path: str) -> str:
        return "openssl"

    def command(self, path: str) -> str:
        return names_command(path)

    def process(self, output: list[str]) -> frozenset[str]:
        return parse_names("\n".join(output))


class Completions(FactBase[dict[str, dict[str, Any]]]):
    """What a `roles.balancer.completions.script` on the standard input printed."""

    @staticmethod
    def default() -> dict[str, dict[str, Any]]:
        return {}

    def requires_command(self) -> str:
        return "python3"

    def command(self) -> str:
        return "python3 -"

    def process(self, output: list[str]) -> dict[str, dict[str, Any]]:
        said = output[-1] if output else ""
        try:
            results = json.loads(said)
            for result in results.values():
                _ = result["ok"] or (result["status"], result["error"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FactProcessError(f"the replicas could not be asked: {said}") from error
        return results


class NginxState(FactBase[dict[str, Any]]):
    """Whether nginx is `enabled`, is `active`, and has `loaded` the files as they are."""

    @staticmethod
    def default() -> dict[str, Any]:
        return {"enabled": False, "active": False, "loaded": False}

    def requires_command(self) -> str:
        return "systemctl"

    def command(self) -> str:
        return state_command()

    def process(self, output: list[str]) -> dict[str, Any]:
        try:
            enabled, active, digest, loaded = (line.strip() for line in [*output, ""][:4])
        except ValueError as error:
            raise FactProcessError(f"not the state of nginx: {output}") from error
        return {
            "enabled": enabled == "enabled",
            "active": active == "active",
            "loaded": loaded == digest,
        }
