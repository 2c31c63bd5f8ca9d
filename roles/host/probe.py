"""Requests real completions from a host itself: standard library only, sent to `python3 -`.

`roles.host.program.bundle` puts this text before the lines that use it, so nothing must be
installed on a host. Keys are passed on the standard input, never in an argument. The control
machine uses the same functions for a balancer.

The server is not trusted: time, size and depth of an answer are bounded, redirects are not
followed, and the values that are returned have checked types and lengths.
"""

import contextlib
import http.client
import io
import json
import math
import socket
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

# The program's task; `roles.host.program.bundle` sets it.
TASK = {}

PROMPT = "Say hello."
# A question, a document that answers it, and one of another subject.
QUESTION = "What is the capital of France?"
DOCUMENTS = ["Bread is baked from flour, water and yeast.", "Paris is the capital of France."]
RELATED = 1
# Maximum bytes of an answer with its headers, and for each token of it, with its JSON.
MAX_BYTES, MAX_TOKEN_BYTES = 1 << 20, 1024
MAX_TEXT_LENGTH = 500
MAX_MODELS = 100
# http.client's errors on a broken answer are not OSErrors, and deep JSON is a RecursionError.
ERRORS = (OSError, http.client.HTTPException, ValueError, RecursionError)


TOO_LONG = "the answer is too long"


class _Bytes(io.RawIOBase):
    """The bytes of a socket, and no more than `left`."""

    def __init__(self, connection, left):
        self.connection, self.left = connection, left

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self.connection.recv_into(buffer)
        self.left -= count
        if self.left < 0:
            raise ValueError(TOO_LONG)
        return count


class _Bounded(io.BufferedReader):
    """A reader of bounded size that http.client can use as a socket and as its file."""

    def makefile(self, mode):
        return self

    def read(self, size=-1):  # type: ignore
        # Python would allocate as much memory as the answer announces.
        if size is not None and size > self.raw.left:  # type: ignore
            raise ValueError(TOO_LONG)
        return super().read(size)


def _shut_down(sockets):
    """Shut sockets down, so that a reader finds their end."""
    for one in sockets:
        with contextlib.suppress(OSError, ValueError):
            one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _deadline(timeout_s):
    """A list of sockets, which are shut down when the time is up; then raises TimeoutError.

    A socket's own timeout would restart with each byte.
    """
    sockets, end = [], time.monotonic() + timeout_s
    timer = threading.Timer(timeout_s, _shut_down, [sockets])
    timer.daemon = True
    timer.start()
    try:
        yield sockets
    except ERRORS as error:
        if time.monotonic() >= end or isinstance(error, TimeoutError):
            raise TimeoutError("timed out") from error
        raise
    else:
        if time.monotonic() >= end:
            raise TimeoutError("timed out")
    finally:
        timer.cancel()
        for one in sockets:
            one.close()


def _connect(sockets, host, port, timeout_s, context):
    sockets.append(socket.create_connection((host, port), timeout_s))
    if context:
        sockets.append(
            context.wrap_socket(sockets[-1], server_hostname=host, do_handshake_on_connect=False)
        )
        sockets[-1].do_handshake()
    return sockets[-1]


@contextlib.contextmanager
def request(url, key, timeout_s, body=None, most_bytes=MAX_BYTES, context=None):
    """The response to one request: a POST of `body` (JSON-able), or a GET without one.

    Proxies of the environment are ignored. Raises one of `ERRORS` if there is no response.
    """
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if context else 80)
    headers = {"Connection": "close", "Content-Type": "application/json"}
    if key:
        headers["Authorization"] = "Bearer " + key
    with _deadline(timeout_s) as sockets:
        connection = http.client.HTTPConnection(parts.hostname, port)
        connection.sock = _connect(sockets, parts.hostname, port, timeout_s, context)
        method, data = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
        connection.request(method, parts.path, data, headers)
        bounded = _Bounded(_Bytes(connection.sock, most_bytes))
        with http.client.HTTPResponse(bounded, method=method) as response:  # type: ignore
            response.begin()
            yield response


def plain(value):
    """Untrusted text, shortened and without characters that a terminal would act on."""
    text = str(value)[:MAX_TEXT_LENGTH]
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _bounded_integer(digits):
    # Older Pythons take seconds for a million digits.
    if len(digits) > 20:
        raise ValueError("a number of %d digits" % len(digits))
    return int(digits)


def parsed(text):
    """The value of untrusted JSON; raises ValueError or RecursionError if it is not valid."""
    return json.loads(text, parse_int=_bounded_integer)


def _refused(response):
    with contextlib.suppress(OSError, http.client.HTTPException):
        text = plain(response.read(MAX_TEXT_LENGTH).decode(errors="replace"))
        return {
            "ok": False,
            "status": response.status,
            "error": "HTTP %d: %s" % (response.status, text),
        }
    text = "HTTP %d: its body could not be read" % response.status
    return {"ok": False, "status": response.status, "error": text}


def _failure(error):
    return {"ok": False, "status": None, "error": plain(error) or type(error).__name__}


def completion_body(model, prompt, max_tokens, stream=False):
    """What asks for a chat completion of one message."""
    message = {"role": "user", "content": prompt}
    body = {"model": model, "messages": [message], "max_tokens": max_tokens, "temperature": 0}
    if stream:
        body.update(stream=True, stream_options={"include_usage": True})
    return body


def _completion(answer):
    """Tokens, model and fingerprint of a chat completion; ValueError if it is not one."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if type(tokens) is not int or tokens >= 1 << 31:
        raise ValueError("the answer is not a chat completion")
    texts = {name: answer.get(name) for name in ("model", "system_fingerprint")}
    for name, text in texts.items():
        if not isinstance(text, (str, type(None))):
            raise ValueError("the answer is not a chat completion (%s)" % name)
    return tokens, *(text if text is None else plain(text) for text in texts.values())


def chat(base_url, key, model, timeout_s=30.0, max_tokens=1, prompt=PROMPT, context=None):
    """Request one chat completion; returns a dict with ok, status, seconds and tokens, or error.

    `context` is an ssl.SSLContext for https. `replica` in the result is the upstream that a
    balancer names.
    """
    start = time.monotonic()
    body = completion_body(model, prompt, max_tokens)
    most = MAX_BYTES + MAX_TOKEN_BYTES * max_tokens
    try:
        with request(_url(base_url), key, timeout_s, body, most, context) as response:
            if response.status // 100 != 2:
                return _refused(response)
            answer = parsed(response.read())
            replica = _replica(response)
        tokens, served, fingerprint = _completion(answer)
    except ERRORS as error:
        return _failure(error)
    if tokens < 1:
        return {"ok": False, "status": 200, "error": "the completion has no token"}
    return {
        "ok": True,
        "status": 200,
        "seconds": round(time.monotonic() - start, 3),
        "tokens": tokens,
        "model": served,
        "fingerprint": fingerprint,
        "replica": replica,
    }


def _replica(response):
    """The upstream that a balancer names; None where it names none."""
    replica = response.headers.get("X-LLM-Replica")
    return replica if replica is None else plain(replica)


def embed(base_url, key, model, timeout_s=30.0, max_tokens=1, prompt=PROMPT, context=None):
    """Request the embedding of a prompt; returns a dict with ok, status, seconds, tokens (of the
    prompt) and length (of the vector), or error. See `chat`; `max_tokens` has no meaning here."""

    def vector(answer):
        numbers = answer["data"][0]["embedding"]
        if not numbers or not all(map(_is_finite, numbers)):
            raise ValueError("the answer has no vector of numbers")
        return {"length": len(numbers)}

    body = {"model": model, "input": prompt}
    return _pooled(base_url + "/v1/embeddings", key, body, timeout_s, context, vector)


def rerank(base_url, key, model, timeout_s=30.0, max_tokens=1, prompt=QUESTION, context=None):
    """Request the ranks of `DOCUMENTS` for a question; returns a dict with ok, status, seconds,
    tokens (of the prompt) and order (their indexes, the best first), or error. See `chat`;
    `max_tokens` has no meaning here."""

    def order(answer):
        # Some engines answer with the list alone, and name the score otherwise.
        found = answer["results"] if isinstance(answer, dict) else answer
        scores = {one["index"]: one.get("relevance_score", one.get("score")) for one in found}
        if sorted(scores) != [0, 1] or not all(map(_is_finite, scores.values())):
            raise ValueError("the answer does not rank the documents")
        return {"order": sorted(scores, key=lambda index: -scores[index])}

    body = {"model": model, "query": prompt, "documents": DOCUMENTS}
    return _pooled(base_url + "/v1/rerank", key, body, timeout_s, context, order)


def _is_finite(number):
    return type(number) in (int, float) and math.isfinite(number)


def _pooled(url, key, body, timeout_s, context, read):
    """The outcome of a request that is answered at once, with what `read` finds in the answer."""
    start = time.monotonic()
    try:
        with request(url, key, timeout_s, body, context=context) as response:
            if response.status // 100 != 2:
                return _refused(response)
            answer = parsed(response.read())
            replica = _replica(response)
        found = read(answer)
        fields = answer if isinstance(answer, dict) else {}
        usage = fields.get("usage") or {}
        tokens = usage.get("prompt_tokens") or usage.get("total_tokens") or 0
        if type(tokens) is not int or not 0 <= tokens < 1 << 31:
            raise ValueError("the answer's tokens are no number")
    except (LookupError, TypeError, AttributeError):
        return _failure(ValueError("the answer is none to such a request"))
    except ERRORS as error:
        return _failure(error)
    # An engine that names no model has only one.
    served = fields.get("model") or body["model"]
    return {
        "ok": True,
        "status": 200,
        "seconds": round(time.monotonic() - start, 3),
        "tokens": tokens,
        "model": plain(served),
        "fingerprint": None,
        "replica": replica,
        **found,
    }


# How an engine proves that it serves, by the task of its service.
PROOFS = {"generate": chat, "embed": embed, "rerank": rerank}


def message(base_url, key, body, timeout_s=30.0):
    """Request one chat completion of `body`, which has `max_tokens`; returns a dict with ok and
    message, or error. The message is untrusted JSON, a dict."""
    most = MAX_BYTES + MAX_TOKEN_BYTES * body["max_tokens"]
    try:
        with request(_url(base_url), key, timeout_s, body, most) as response:
            if response.status // 100 != 2:
                return _refused(response)
            answer = parsed(response.read())
        found = answer["choices"][0]["message"]
        if not isinstance(found, dict):
            raise ValueError("the answer is not a chat completion")
    except (LookupError, TypeError):
        return _failure(ValueError("the answer is not a chat completion"))
    except ERRORS as error:
        return _failure(error)
    return {"ok": True, "status": 200, "message": found}


def _url(base_url):
    return base_url + "/v1/chat/completions"


def _stream_error(data):
    """The error inside a stream whose status is already 200; None if there is none."""
    try:
        return parsed(data).get("error")
    except (ValueError, AttributeError, RecursionError):
        return None


def chat_stream(base_url, key, model, timeout_s=30.0, max_tokens=8, prompt=PROMPT, context=None):
    """Request a streamed chat completion; ok only if it has chunks and ends with [DONE]."""
    start = time.monotonic()
    chunks, done, first = 0, False, None
    body = completion_body(model, prompt, max_tokens, True)
    most = MAX_BYTES + MAX_TOKEN_BYTES * max_tokens
    try:
        with request(_url(base_url), key, timeout_s, body, most, context) as response:
            if response.status // 100 != 2:
                return _refused(response)
            for line in response:
                data = line.decode(errors="replace").strip()
                if data == "data: [DONE]":
                    done = True
                elif data.startswith("data: "):
                    if error := _stream_error(data[len("data: ") :]):
                        return {
                            "ok": False,
                            "status": 200,
                            "error": "in the stream: " + plain(error),
                        }
                    chunks += 1
                    first = first or time.monotonic() - start
    except ERRORS as error:
        return _failure(error)
    if not done or first is None or chunks < 2:
        return {"ok": False, "status": 200, "error": f"{chunks} chunks, [DONE] {done}"}
    return {"ok": True, "status": 200, "chunks": chunks, "first_chunk_s": round(first, 3)}


def served_models(base_url, key, timeout_s=30.0):
    """The names of the models that an engine says it serves; empty where it does not say.

    Some engines answer to any name, and repeat it in a completion.
    """
    try:
        with request(base_url + "/v1/models", key, timeout_s) as response:
            answer = parsed(response.read()) if response.status == 200 else {}
        found = answer["data"][:MAX_MODELS]
        names = [name for one in found for name in [one["id"], *one.get("aliases", ())]]
        return list(dict.fromkeys(map(plain, names[: 2 * MAX_MODELS])))
    except (*ERRORS, KeyError, TypeError, AttributeError):
        return []


def in_parallel(function, items):
    """Apply a function to each item in its own thread; the results keep the items' order."""
    items = list(items)
    with ThreadPoolExecutor(max_workers=max(1, len(items))) as pool:
        return list(pool.map(function, items))
