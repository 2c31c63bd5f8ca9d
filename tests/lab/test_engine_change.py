"""A service changes its engine in a rolling update, and no request is lost."""

from pathlib import Path

from tests.lab.conftest import Fleet, UnderLoad

VERSION = "sudo cat /etc/llm/replicas/qwen2.5-14b-0/current/replica.json"


def test_from_vllm_to_llama_cpp(fleet: Fleet, to_llama: UnderLoad):
    assert to_llama.run.status == 0, to_llama.run.text
    assert set(to_llama.statuses) == {200}
    assert '"engine": "llama_cpp"' in fleet.ssh("gpu2", VERSION)


def test_and_back_on_one_host_beside_the_other_engine(llama_fleet: Fleet, llama: Path):
    only = ("--limit", "gpu2", "--limit", "lb1", "--data", "validate=false")
    with llama_fleet.asking() as statuses:
        run = llama_fleet.deploy(*only)
    assert run.status == 0, run.text
    assert '"engine": "vllm"' in llama_fleet.ssh("gpu2", VERSION)
    with llama_fleet.asking() as again:
        run = llama_fleet.deploy(*only, inventory=llama)
    assert run.status == 0, run.text
    assert set(statuses) | set(again) == {200}
    assert all(llama_fleet.upstream().values())
