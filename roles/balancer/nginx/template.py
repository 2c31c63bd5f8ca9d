"""The template of nginx's site, and what is wrong with an inventory's own. Pure."""

import re

from roles.balancer.nginx.paths import KEYS, SELF_SIGNED, UPSTREAMS
from roles.balancer.routes import UPSTREAM_PREFIX
from roles.balancer.template import SiteTemplate

# Where a directive may begin.
START = r"(?:^|(?<=[\s;{}]))"
INCLUDES = re.compile(rf"{START}include\s+[\"']?{re.escape(UPSTREAMS)}[\"']?\s*;")
UPSTREAM_BLOCK = re.compile(START + r"upstream\s+([^\s{;]+)\s*\{")
PASS = re.compile(START + r"(?:proxy|grpc|fastcgi|uwsgi|scgi)_pass\s+([^\s;]+)")
OUR_TARGET = re.compile(rf"[\"']?https?://{UPSTREAM_PREFIX}[A-Za-z0-9._-]+(/[^\s;]*)?[\"']?")
QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\$\{\w+\}")
# In nginx `#` begins a comment only where a word could begin.
COMMENT = re.compile(rf"(?m){START}#.*$")
REMEDY = (
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
        return f"it has an upstream of its own, {found[1]}, which no drain reaches: {REMEDY}"
    if not INCLUDES.search(text):
        return f"it does not include {UPSTREAMS}: {REMEDY}"
    if unbalanced := _brace_problem(text):
        return unbalanced
    if not PASS.search(text):
        return f"it sends requests to no upstream: {REMEDY}"
    for target in PASS.findall(text):
        if not OUR_TARGET.fullmatch(target):
            return f"it sends requests to {target}, which no drain reaches: {REMEDY}"
    return None


def _brace_problem(text: str) -> str | None:
    """The problem of a site with unbalanced braces; None for a balanced one."""
    depth = 0
    for brace in re.findall(r"[{}]", QUOTED.sub("", text)):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return "it has a } too many: each block has one { and one }"
    return f"it lacks {depth} }}: each block has one {{ and one }}" if depth else None


TEMPLATE = SiteTemplate(
    "nginx/llm.conf.j2",
    {"upstreams_file": UPSTREAMS, "keys_folder": KEYS, "certificate_key": SELF_SIGNED},
    drain_problem,
    REMEDY,
)
