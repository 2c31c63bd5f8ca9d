"""What a real llama-server does with the options of a plan."""

from pathlib import Path

import pytest

from roles.host import probe
from tests.adapters import gguf_adapter
from tests.lab import model
from tests.render.llama_servers import NAME, serving, tiny_model


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


def test_an_adapter_is_loaded_and_listed(tmp_path: Path):
    wide = model.HEADS * model.HEAD_DIM
    adapter = gguf_adapter(tmp_path / "style.gguf", hidden=model.HIDDEN, outputs=wide)
    with serving(tmp_path, adapters={"style": str(adapter)}) as url:
        assert probe.served_models(url, "") == [NAME, "style"]
        assert probe.chat(url, "", "style", 60)["ok"]
        with probe.request(f"{url}/lora-adapters", "", 60) as response:
            (loaded,) = probe.parsed(response.read())
    assert (loaded["path"], loaded["scale"]) == (str(adapter), 1.0)


@pytest.mark.parametrize("method", ["ngram", "draft_model"])
def test_drafted_tokens_are_checked(tmp_path: Path, method: str):
    own = {"method": method, "tokens": 4}
    if method == "draft_model":
        # Described as a smaller one: no other would be taken for a draft.
        own |= {"model": tiny_model(layers=1), "weights": str(tmp_path / "tiny.gguf")}
    with serving(tmp_path, speculative=own) as url:
        answer = probe.chat(url, "", NAME, 60, max_tokens=48)
        with probe.request(f"{url}/metrics", "", 60) as response:
            lines = dict(
                line.split() for line in response.read().decode().splitlines() if line[0] != "#"
            )
    assert answer["ok"] and answer["tokens"] > 1
    if method == "draft_model":
        # The model drafts for itself, so that much of it is taken.
        assert float(lines["llamacpp:spec_decode_num_accepted_tokens_total"]) > 0
