"""The jinja environment: renders whole files of templates/; an unknown variable is an error."""

from functools import cache
from pathlib import Path
from typing import Any

import jinja2

# A link to templates/ of the repository; an installed package has the files themselves.
TEMPLATES = Path(__file__).parents[1] / "templates"


def render(template: str, **values: Any) -> str:
    """Render a template of templates/; jinja2.TemplateError if a value is missing."""
    return _environment().get_template(template).render(**values)


def quoted(value: object) -> str:
    """A value quoted and escaped for systemd's EnvironmentFile=."""
    text = str(value)
    for character in ("\\", '"', "$", "`"):
        text = text.replace(character, f"\\{character}")
    return f'"{text}"'


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = quoted
    return environment
