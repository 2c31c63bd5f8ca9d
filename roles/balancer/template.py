"""Jinja2 templates of a balancer's files, and checks of an inventory's own template."""

import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from roles.balancer.sites import SAMPLE_SITES
from roles.host import read_text
from roles.host.templates import TEMPLATES

MANAGED = "Written by pyinfra-llm: changes here are lost at the next deploy."

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
# Sites of a few kilobytes take milliseconds.
_RENDER_S = 1


SAMPLE: Mapping[str, Any] = {
    "sites": SAMPLE_SITES,
    "ipv6": True,
    "certificate": "/etc/certificate.pem",
    "connect_timeout_s": 2,
    "read_timeout_s": 600,
    "max_body_mib": 32,
    "errors": [{"status": 502, "body": "{}"}],
}
"""Values of the variables that every program's template has."""


@dataclass(frozen=True)
class SiteTemplate:
    """The template of a program's site, below templates/, which an inventory may replace.

    `values` are the variables that it has beside those of SAMPLE. `drain_problem` says of a
    rendered site why it would send requests to drained members, and what to do; None where it would
    not. `remedy` says how a site follows drains.
    """

    file: str
    values: Mapping[str, Any]
    drain_problem: Callable[[str], str | None]
    remedy: str

    def rendered(self, own: Path | None, **values: Any) -> str:
        """The site's text; jinja2.TemplateError where an inventory's `own` template is wrong."""
        return rendered(read_text(own or TEMPLATES / self.file), **{**self.values, **values})

    def check(self, own: Path) -> None:
        """ValueError where an inventory's template cannot be rendered, or ignores drains."""
        try:
            with _time_limit(_RENDER_S):
                site = self.rendered(own, **SAMPLE)
        except Exception as error:  # a template may raise anything
            message = getattr(error, "message", None) or str(error) or type(error).__name__
            if message == "'servers' is undefined":
                message = f"{message}: {self.remedy}"
            raise ValueError(f"{own}, line {_line(error)}: {message}") from error
        if problem := self.drain_problem(site):
            raise ValueError(f"{own}: {problem}")
        if unprintable := _UNPRINTABLE.search(site):
            raise ValueError(f"{own}: it has the control character {unprintable[0]!r}; remove it")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Limits a template's loops, and what it makes by repetition."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The result of an operation on numbers; others could fill the memory."""
        if operator == "**" or not all(isinstance(one, int | float) for one in (left, right)):
            raise SecurityError(f"{operator} of these values is not allowed here")
        return super().call_binop(context, operator, left, right)


@contextmanager
def _time_limit(limit_s: float) -> Iterator[None]:
    """TimeoutError in Python code that is called here and takes more processor time.

    A trace needs no signal, which only a main thread may take, and no process.
    """
    end, before = time.thread_time() + limit_s, sys.gettrace()

    def trace(frame: object, event: str, argument: object) -> Any:
        if time.thread_time() > end:
            raise TimeoutError(f"it takes longer than {limit_s:g} s to render; shorten its loops")
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def rendered(text: str, **values: Any) -> str:
    """A rendered template; jinja2.TemplateError where it is wrong, or a variable is unknown."""
    return _compiled(text).render(managed=MANAGED, **values)


@lru_cache(maxsize=8)
def _compiled(text: str) -> Template:
    # An inventory's own template is not trusted: the sandbox limits its loops.
    environment = _Sandbox(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    return environment.from_string(text)


def _line(error: Exception) -> int:
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 1 for frame in frames if frame.filename == "<template>"), 1)
