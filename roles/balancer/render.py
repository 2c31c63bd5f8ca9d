"""The balancer's files as text."""

import json
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateSyntaxError

from roles.balancer.settings import BalancerSettings, read
from roles.balancer.upstream import Server

TEMPLATES = Path(__file__).resolve().parents[2] / "templates" / "nginx"
MANAGED = "Written by pyinfra-llm: changes here are lost at the next deploy."
ERRORS = {
    401: ("The API key is missing or wrong.", "invalid_request_error", "invalid_api_key"),
    404: ("There is nothing at this address.", "invalid_request_error", "not_found"),
    413: ("The request is too large.", "invalid_request_error", "request_too_large"),
    502: ("No replica could answer.", "server_error", "bad_gateway"),
    504: ("The replica did not answer in time.", "server_error", "timeout"),
}
SAMPLE = (
    Server("gpu1/r0", "192.0.2.1", 8000),
    Server("gpu2/r0", "192.0.2.2", 8000, out="its completion failed: timed out"),
    Server("gpu3/r0", "2001:db8::3", 8000, kept="its host is drained"),
)


def render_site(
    settings: BalancerSettings, servers: Sequence[Server], certificate: str, certificate_key: str
) -> str:
    """/etc/nginx/conf.d/llm.conf; the certificate's paths are those on the balancer.

    jinja2.TemplateError where an own template is wrong or uses a variable that there is not.
    """
    return _render(
        settings.template or TEMPLATES / "llm.conf.j2",
        servers=servers,
        limits=f" max_fails={settings.max_fails} fail_timeout={settings.fail_timeout_s}s",
        port=settings.port,
        ipv6=settings.ipv6,
        server_name=settings.server_name,
        # Only a balancer that answers to every name may claim the port for itself.
        default_server=" default_server" if settings.server_name == "_" else "",
        certificate=certificate,
        certificate_key=certificate_key,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        max_body_mib=settings.max_body_mib,
        errors=[{"status": status, "body": _error(*error)} for status, error in ERRORS.items()],
    )


def check_template(settings: BalancerSettings) -> None:
    """ValueError with the line where the settings' own template cannot be rendered."""
    try:
        render_site(settings, SAMPLE, "certificate.pem", "certificate.key")
    except Exception as error:  # a template may raise anything
        said = getattr(error, "message", None) or str(error)
        raise ValueError(f"{settings.template}, line {_line(error)}: {said}") from error


def _line(error: Exception) -> int:
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 1 for frame in frames if frame.filename == "<template>"), 1)


def render_keys(api_key: str, engine_key: str) -> str:
    """/etc/nginx/llm/keys.conf: secret, for root alone."""
    return _render(
        TEMPLATES / "keys.conf.j2", client_key_pattern=_literal(api_key), engine_key=engine_key
    )


def _render(template: Path, **values: Any) -> str:
    environment = Environment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    return environment.from_string(read(template)).render(managed=MANAGED, **values)


def _error(message: str, kind: str, code: str) -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _literal(key: str) -> str:
    """A regular expression that matches exactly the key."""
    return "".join(char if char.isalnum() else f"\\x{ord(char):02x}" for char in key)
