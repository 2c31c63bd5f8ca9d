"""What a real llama-server does with the options of a plan."""

from pathlib import Path

import pytest

from roles.host import probe
from tests.lab import model
from tests.render.llama_servers import NAME, serving


@pytest.mark.parametrize("arguments", [{}, {"pooling": "mean"}], ids=["last", "mean"])
def test_embeddings_have_the_hidden_size(tmp_path: Path, arguments: dict[str, str]):
    with serving(tmp_path, task="embed", arguments=arguments) as url:
        answer = probe.embed(url, "", NAME, 60)
        assert (answer["ok"], answer.get("length"), answer.get("model")) == (
            *(True, model.HIDDEN, NAME),
        )
        # As long as a request may be, in one step or several.
        long = probe.embed(url, "", NAME, 60, prompt="a" * 400)
        assert long["ok"] and long["tokens"] >= 200


def test_documents_are_ranked(tmp_path: Path):
    with serving(tmp_path, task="rerank") as url:
        answer = probe.rerank(url, "", NAME, 60)
    # Its weights are random numbers, so it ranks, but says nothing by it.
    assert answer["ok"] and sorted(answer["order"]) == [0, 1]
    assert (answer["model"], answer["tokens"] > 0) == (NAME, True)


def test_a_server_for_chats_neither_embeds_nor_ranks(tmp_path: Path):
    with serving(tmp_path) as url:
        assert probe.chat(url, "", NAME, 60)["ok"]
        refused = [ask(url, "", NAME, 60) for ask in (probe.embed, probe.rerank)]
    assert [(one["ok"], one["status"]) for one in refused] == [(False, 501), (False, 501)]
