"""A steady load of plain and streamed requests, and what came of each.

As a program, `load.py URL KEY_FILE MODEL WORKERS TOKENS WORDS` asks until its standard input ends,
and prints a line of JSON for each request.
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

# Longer than any fault may hold a request up.
PATIENCE_S = 300
PAUSE_S = 0.5


@dataclass(frozen=True)
class Answer:
    """What came of one request; times are seconds of the epoch, status 0 is no answer at all.

    `whole`: whether the answer came to its end.
    """

    begin_s: float
    end_s: float
    status: int
    whole: bool
    streamed: bool

    @property
    def good(self) -> bool:
        return self.status == 200 and self.whole


@dataclass
class Load:
    """A load that is under way; `answers` grows."""

    answers: list[Answer] = field(default_factory=list)

    def failed(self) -> list[Answer]:
        return [one for one in self.answers if not one.good]

    def since(self, begin_s: float) -> list[Answer]:
        """Answers of requests that were begun since then."""
        return [one for one in self.answers if one.begin_s >= begin_s]


@contextmanager
def loaded(
    url: str, key: Path, model: str, workers: int = 4, tokens: int = 64, words: int = 3
) -> Iterator[Load]:
    """Ask meanwhile from the control side, half of it streamed; `answers` is whole at the end."""
    from . import network

    numbers = [str(workers), str(tokens), str(words)]
    process = subprocess.Popen(
        network.inside([sys.executable, __file__, url, str(key), model, *numbers]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    load = Load()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            load.answers.append(Answer(**json.loads(line)))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield load
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(PATIENCE_S + 30)
        reader.join()
    assert len(load.answers) > workers, "too few were asked"


def ask(url: str, key: str, model: str, tokens: int, words: int, streamed: bool) -> Answer:
    """One request, to its end."""
    parts = urlsplit(url)
    secured = ssl._create_unverified_context()
    began, status, body = time.time(), 0, b""
    # No two prompts are the same: a cached one is a short one.
    prompt = " ".join(f"{began} {n}" for n in range(words))
    connection = http.client.HTTPSConnection(parts.netloc, timeout=PATIENCE_S, context=secured)
    sent = {
        "model": model,
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": streamed,
        "messages": [{"role": "user", "content": prompt}],
    }
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        path = f"{parts.path}/v1/chat/completions"
        connection.request("POST", path, json.dumps(sent), headers)
        answer = connection.getresponse()
        status = answer.status
        body = answer.read()
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()
    whole = body.rstrip().endswith(b"data: [DONE]" if streamed else b"}")
    return Answer(began, time.time(), status, whole, streamed)


def main(url: str, key_file: str, model: str, *numbers: str) -> None:
    workers, tokens, words = map(int, numbers)
    key, over, printing = Path(key_file).read_text().strip(), threading.Event(), threading.Lock()

    def work(streamed: bool) -> None:
        while not over.wait(PAUSE_S):
            answer = ask(url, key, model, tokens, words, streamed)
            # A line is two writes, and another one must not come between.
            with printing:
                print(json.dumps(vars(answer)), flush=True)

    threads = [threading.Thread(target=work, args=(n % 2 == 0,)) for n in range(workers)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
