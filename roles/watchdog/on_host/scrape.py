"""Reads an engine's metrics and asks it for a completion; runs on a host, after probe.py.

An engine is not trusted: size, time and numbers of its answers are bounded.
"""

import math
import time
from collections import namedtuple

from roles.host.probe import (
    ERRORS,
    PROMPT,
    PROOFS,
    completion_body,
    parsed,
    plain,
    request,
)
from roles.watchdog.on_host.judge import (
    BUSY,
    GOOD,
    LATE,
    PAGE,
    REFUSED,
    SILENT,
    UNFIT,
    UNREADABLE,
    WRONG,
    Probe,
)

# A page of metrics that takes longer is given up; the replica counts as late after a second.
SCRAPE_S = 5
# A text of so many characters that are all the same is nonsense: broken weights or a broken GPU
# answer so.
SAME_CHARACTERS = 8


class Scrape(namedtuple("Scrape", "outcome steps pending detail", defaults=(None, None, ""))):
    """What a page of metrics says; a value that it lacks is None."""


def scrape(port, watch, key, timeout_s=SCRAPE_S):
    """Read the metrics of a replica once."""
    url = "http://127.0.0.1:%d%s" % (port, watch["path"])
    try:
        with request(url, key if watch["keyed"] else "", timeout_s) as response:
            if response.status != 200:
                return Scrape(UNREADABLE, detail="metrics: HTTP %d" % response.status)
            text = response.read().decode(errors="replace")
    except ConnectionRefusedError:
        return Scrape(REFUSED)
    # Its size or form, not its time.
    except ValueError as error:
        return Scrape(UNREADABLE, detail="metrics: " + plain(error))
    except ERRORS:
        return Scrape(LATE)
    steps, pending = total(text, watch["steps"]), total(text, watch["pending"])
    lacks = [name for name, value in (("steps", steps), ("pending", pending)) if value is None]
    detail = "metrics: no readable %s" % " and ".join(lacks) if lacks else ""
    return Scrape(PAGE if not lacks else UNREADABLE, steps, pending, detail)


def scrape_slots(port, path, timeout_s=SCRAPE_S):
    """Ask an engine for the list of its slots once; `pending` is how many of them work."""
    try:
        with request("http://127.0.0.1:%d%s" % (port, path), "", timeout_s) as response:
            if response.status != 200:
                return Scrape(UNREADABLE, detail="slots: HTTP %d" % response.status)
            slots = parsed(response.read())
        return Scrape(PAGE, None, sum(bool(slot["is_processing"]) for slot in slots))
    except ConnectionRefusedError:
        return Scrape(UNREADABLE, detail="slots: its engine takes no connection")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        return Scrape(UNREADABLE, detail="slots: " + plain(repr(error)))
    except ERRORS:
        return Scrape(LATE)


def total(text, names):
    """The sum of some metrics over all labels; None where none of them has a sensible value."""
    found = None
    for line in text.split("\n"):
        name = line.partition("{")[0].partition(" ")[0]
        if name in names:
            value = _value(line)
            if value is None:
                return None
            found = value if found is None else found + value
    return found


def _value(line):
    rest = line.rpartition("}")[2] if "{" in line else line.partition(" ")[2]
    try:
        value = float(rest.split()[0])
    except (ValueError, IndexError):
        return None
    return value if math.isfinite(value) and value >= 0 else None


def probe(port, model, key, timeout_s, tokens, task="generate"):
    """Ask a replica for a completion of a few tokens, or for what its task is instead."""
    started = time.monotonic()
    if task != "generate":
        proof = PROOFS[task]("http://127.0.0.1:%d" % port, key, model, timeout_s)
        return Probe(kind_of_proof(proof), started, proof.get("error", ""))
    body = completion_body(model, PROMPT, tokens)
    url = "http://127.0.0.1:%d/v1/chat/completions" % port
    try:
        with request(url, key, timeout_s, body) as response:
            status, text = response.status, response.read()
    except TimeoutError:
        return Probe(SILENT, started, "no answer within %g s" % timeout_s)
    except ValueError as error:
        return Probe(WRONG, started, plain(error))
    except ERRORS as error:
        return Probe(SILENT, started, plain(error) or type(error).__name__)
    return Probe(kind_of(status, text), started, "HTTP %d: %s" % (status, excerpt(text)))


def kind_of_proof(proof):
    """What an answer without tokens says."""
    if proof["ok"]:
        return GOOD
    # Nonsense has no status either, and counts as much as silence.
    return SILENT if proof["status"] is None else _kind_of_status(proof["status"])


def _kind_of_status(status):
    """What a status alone says; None where the body counts."""
    if status in (429, 503):
        return BUSY
    if status // 100 == 5:
        return WRONG
    return None if status // 100 == 2 else UNFIT


def excerpt(text):
    return plain(text[:200].decode(errors="replace"))


def kind_of(status, text):
    """What an answer to a probe says."""
    by_status = _kind_of_status(status)
    if by_status:
        return by_status
    try:
        answer = parsed(text)
        tokens = answer["usage"]["completion_tokens"]
        content = answer["choices"][0]["message"].get("content") or ""
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return WRONG
    if type(tokens) is not int or tokens < 1 or not isinstance(content, str):
        return WRONG
    return WRONG if len(content) >= SAME_CHARACTERS and len(set(content)) == 1 else GOOD
