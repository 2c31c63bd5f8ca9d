"""The template of HAProxy's site, and what is wrong with an inventory's own. Pure."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from roles.balancer.haproxy.paths import KEYS
from roles.balancer.routes import UPSTREAM_PREFIX
from roles.balancer.sites import SAMPLE_SITES, Site
from roles.balancer.template import SiteTemplate

SECTION = re.compile(r"(?m)^[ \t]*(backend|listen|ring|peers)[ \t]+(\S+)")
SERVER = re.compile(
    r"(?m)^[ \t]*((?:default-|use-)?server|server-template|dispatch|option[ \t]+transparent)(?!\S)"
)
TARGET = re.compile(r"(?m)^[ \t]*(?:use_backend|default_backend)[ \t]+(\S+)")
OUR_TARGET = re.compile(rf"{UPSTREAM_PREFIX}[A-Za-z0-9._-]+")
# Outside of quotes `#` begins a comment where a word could begin.
COMMENT = re.compile(r"(?m)(?:^|(?<=[ \t]))#.*$")
# Of the words in which a line begins none needs them.
QUOTES = re.compile(r"[\"'\\]")
REMEDY = (
    "backends are written into a file of their own, which is loaded after this one; leave them "
    "out and send requests to each location's upstream by `use_backend`, as "
    "templates/haproxy/llm.cfg.j2 does"
)
NO_LENGTH = json.dumps(
    {
        "error": {
            "message": "A large request needs the header Content-Length.",
            "type": "invalid_request_error",
            "param": None,
            "code": "length_required",
        }
    }
)


@dataclass(frozen=True)
class Frontend:
    """A port with its sites: first the one for names that no other site has, then those whose name
    is more exact than that of the sites before."""

    port: int
    sites: tuple[Site, ...]


def frontends(sites: Sequence[Site]) -> tuple[Frontend, ...]:
    """The ports of sites, in order."""
    ports = dict.fromkeys(site.port for site in sites)
    return tuple(_frontend(port, [site for site in sites if site.port == port]) for port in ports)


def _frontend(port: int, sites: Sequence[Site]) -> Frontend:
    first = next((site for site in sites if site.default_server), sites[0])
    named = [site for site in sites if site is not first]
    named.sort(key=lambda site: (not site.server_name.startswith("*"), len(site.server_name)))
    return Frontend(port, (first, *named))


def drain_problem(site: str) -> str | None:
    """Why a site would send requests to drained members, and what to do; None where it would not.

    Only upstreams.cfg follows drains, so a site must name its backends and none of its own.
    """
    text = QUOTES.sub("", COMMENT.sub("", site))
    if found := SECTION.search(text):
        return f"it has {found[1]} {found[2]} of its own, which no drain reaches: {REMEDY}"
    if found := SERVER.search(text):
        return f"it has `{found[1]}`, which no drain reaches: {REMEDY}"
    targets = TARGET.findall(text)
    for target in targets:
        if not OUR_TARGET.fullmatch(target):
            return f"it sends requests to {target}, which no drain reaches: {REMEDY}"
    return None if targets else f"it sends requests to no backend: {REMEDY}"


TEMPLATE = SiteTemplate(
    "haproxy/llm.cfg.j2",
    {"keys_folder": KEYS, "no_length": NO_LENGTH, "frontends": frontends(SAMPLE_SITES)},
    drain_problem,
    REMEDY,
)
