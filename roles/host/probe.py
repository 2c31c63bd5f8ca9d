"""Real completions, asked by a host itself: standard library only, sent to `python3 -`.

`roles.host.program.bundle` puts this text before the few lines that use it, so that nothing has
to be installed on a host, and hands over keys on the standard input, never in an argument. The
control machine asks a balancer by the same functions.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

# What a program is to do; `roles.host.program.bundle` sets it.
TASK = {}

PROMPT = "Say hello."
# http.client's errors on a broken answer are not OSErrors.
_ERRORS = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # A redirect would send the key elsewhere.
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        return None


def _open(base_url, key, body, timeout_s, context):
    request = urllib.request.Request(
        base_url + "/v1/chat/completions", data=json.dumps(body).encode()
    )
    request.add_header("Content-Type", "application/json")
    if key:
        request.add_header("Authorization", "Bearer " + key)
    # A proxy of the environment must not stand between a host and its own engine.
    handlers = [urllib.request.ProxyHandler({}), _NoRedirect()]
    if context:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers).open(request, timeout=timeout_s)


def _failure(error):
    if isinstance(error, urllib.error.HTTPError):
        try:
            text = error.read(300).decode(errors="replace").strip()
        except (OSError, http.client.HTTPException):
            text = "its body could not be read"
        return {"ok": False, "status": error.code, "error": f"HTTP {error.code}: {text}"}
    reason = str(getattr(error, "reason", None) or error) or type(error).__name__
    if isinstance(error, (KeyError, TypeError, AttributeError)):
        reason = f"the answer is not a chat completion ({reason})"
    return {"ok": False, "status": None, "error": reason}


def _body(model, prompt, max_tokens, stream):
    message = {"role": "user", "content": prompt}
    body = {"model": model, "messages": [message], "max_tokens": max_tokens, "temperature": 0}
    if stream:
        body.update(stream=True, stream_options={"include_usage": True})
    return body


def chat(base_url, key, model, timeout_s=30.0, max_tokens=1, prompt=PROMPT, context=None):
    """Ask for one chat completion; a dict with ok, status, seconds and tokens, or error.

    `context` is an ssl.SSLContext for https; `replica` is the upstream that a balancer names.
    """
    start = time.monotonic()
    try:
        body = _body(model, prompt, max_tokens, False)
        with _open(base_url, key, body, timeout_s, context) as response:
            answer = json.load(response)
            replica = response.headers.get("X-LLM-Replica")
        tokens = answer["usage"]["completion_tokens"]
        if tokens < 1:
            return {"ok": False, "status": 200, "error": "the completion has no token"}
        return {
            "ok": True,
            "status": 200,
            "seconds": round(time.monotonic() - start, 3),
            "tokens": tokens,
            "model": answer.get("model"),
            "fingerprint": answer.get("system_fingerprint"),
            "replica": replica,
        }
    except _ERRORS as error:
        return _failure(error)


def _stream_error(data):
    """The error that an engine reports in the middle of a stream whose status is 200 already."""
    try:
        return json.loads(data).get("error")
    except (ValueError, AttributeError):
        return None


def chat_stream(base_url, key, model, timeout_s=30.0, max_tokens=8, prompt=PROMPT, context=None):
    """Ask for a streamed chat completion; ok only if it came in chunks and ended with [DONE]."""
    start = time.monotonic()
    chunks, done, first = 0, False, None
    try:
        body = _body(model, prompt, max_tokens, True)
        with _open(base_url, key, body, timeout_s, context) as response:
            for line in response:
                data = line.decode(errors="replace").strip()
                # The timeout of a socket starts anew with each byte: a trickle would never end.
                if time.monotonic() - start > timeout_s:
                    raise TimeoutError(f"the stream did not end in {timeout_s:g} s")
                if data == "data: [DONE]":
                    done = True
                elif data.startswith("data: "):
                    if error := _stream_error(data[len("data: ") :]):
                        return {"ok": False, "status": 200, "error": f"in the stream: {error}"}
                    chunks += 1
                    first = first or time.monotonic() - start
    except _ERRORS as error:
        return _failure(error)
    if not done or first is None or chunks < 2:
        return {"ok": False, "status": 200, "error": f"{chunks} chunks, [DONE] {done}"}
    return {"ok": True, "status": 200, "chunks": chunks, "first_chunk_s": round(first, 3)}


def in_parallel(function, items):
    """Apply a function to each item in a thread of its own; results in the items' order."""
    items = list(items)
    with ThreadPoolExecutor(max_workers=max(1, len(items))) as pool:
        return list(pool.map(function, items))
