"""Jinja2 templates of nginx's files, and checks of an inventory's own template."""

import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from roles.balancer.nginx.paths import KEYS, SELF_SIGNED, UPSTREAMS
from roles.host import read_text

MANAGED = "Written by pyinfra-llm: changes here are lost at the next deploy."
UPSTREAM_PREFIX = "llm_"
# Where a directive may begin.
START = r"(?:^|(?<=[\s;{}]))"
INCLUDES = re.compile(rf"{START}include\s+[\"']?{re.escape(UPSTREAMS)}[\"']?\s*;")
UPSTREAM_BLOCK = re.compile(START + r"upstream\s+([^\s{;]+)\s*\{")
PASS = re.compile(START + r"(?:proxy|grpc|fastcgi|uwsgi|scgi)_pass\s+([^\s;]+)")
OUR_TARGET = re.compile(rf"[\"']?https?://{UPSTREAM_PREFIX}[A-Za-z0-9._-]+(/[^\s;]*)?[\"']?")
QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\$\{\w+\}")
# In nginx `#` begins a comment only where a word could begin.
COMMENT = re.compile(rf"(?m){START}#.*$")

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
# Sites of a few kilobytes take milliseconds.
_RENDER_S = 1


@dataclass(frozen=True)
class Location:
    """One route within a site: requests below `path` ("/chat/v1/") go to `upstream`."""

    path: str
    service: str
    upstream: str

    @property
    def target(self) -> str:
        """The argument of `proxy_pass`; it strips the route's path prefix."""
        return f"http://{self.upstream}" + ("" if self.path == "/v1/" else "/v1/")


@dataclass(frozen=True)
class Site:
    """One server of nginx: a name and a port, with its routes."""

    port: int
    server_name: str
    default_server: bool
    locations: tuple[Location, ...]


SAMPLE_SITES = (
    Site(443, "_", True, (Location("/v1/", "a", "llm_a"), Location("/b/v1/", "b", "llm_b"))),
    Site(8443, "_", True, (Location("/v1/", "c", "llm_c"),)),
)


def site_values(sites: tuple[Site, ...], **values: Any) -> dict[str, Any]:
    """The variables of a site's template."""
    return {"sites": sites, "upstreams_file": UPSTREAMS, "keys_folder": KEYS} | values


SAMPLE = site_values(
    SAMPLE_SITES,
    ipv6=True,
    certificate=SELF_SIGNED,
    certificate_key=SELF_SIGNED,
    connect_timeout_s=2,
    read_timeout_s=600,
    max_body_mib=32,
    errors=[{"status": 502, "body": "{}"}],
)


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
    """TimeoutError in Python code that is called here and runs longer.

    A trace needs no signal, which only a main thread may take, and no process.
    """
    end, before = time.monotonic() + limit_s, sys.gettrace()

    def trace(frame: object, event: str, argument: object) -> Any:
        if time.monotonic() > end:
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


def check_template(path: Path) -> None:
    """ValueError where an inventory's template cannot be rendered, or its site ignores drains."""
    text = read_text(path)
    try:
        with _time_limit(_RENDER_S):
            site = rendered(text, **SAMPLE)
    except Exception as error:  # a template may raise anything
        message = getattr(error, "message", None) or str(error) or type(error).__name__
        if message == "'servers' is undefined":
            message = f"{message}: {_INCLUDE_REMEDY}"
        raise ValueError(f"{path}, line {_line(error)}: {message}") from error
    if problem := drain_problem(site):
        raise ValueError(f"{path}: {problem}")
    if unprintable := _UNPRINTABLE.search(site):
        raise ValueError(f"{path}: it has the control character {unprintable[0]!r}; remove it")


_INCLUDE_REMEDY = (
    "upstreams are written into a file of their own; put `include {{ upstreams_file }};` in place "
    "of the upstream block, and proxy each of a site's locations to its target, as "
    "templates/nginx/llm.conf.j2 does"
)


def drain_problem(site: str) -> str | None:
    """Why a site would send requests to drained members, and what to do; None where it would not.

    Only upstreams.conf follows drains, so the site must include it and send requests nowhere else.
    """
    text = COMMENT.sub("", site)
    if found := UPSTREAM_BLOCK.search(text):
        return (
            f"it has an upstream of its own, {found[1]}, which no drain reaches: {_INCLUDE_REMEDY}"
        )
    if not INCLUDES.search(text):
        return f"it does not include {UPSTREAMS}: {_INCLUDE_REMEDY}"
    if unbalanced := _brace_problem(text):
        return unbalanced
    if not PASS.search(text):
        return f"it sends requests to no upstream: {_INCLUDE_REMEDY}"
    for target in PASS.findall(text):
        if not OUR_TARGET.fullmatch(target):
            return f"it sends requests to {target}, which no drain reaches: {_INCLUDE_REMEDY}"
    return None


def _brace_problem(text: str) -> str | None:
    """The problem of a site with unbalanced braces; None for a balanced one."""
    depth = 0
    for brace in re.findall(r"[{}]", QUOTED.sub("", text)):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return "it has a } too many: each block has one { and one }"
    return f"it lacks {depth} }}: each block has one {{ and one }}" if depth else None


def _line(error: Exception) -> int:
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 1 for frame in frames if frame.filename == "<template>"), 1)
