"""Replicas over several hosts: which hosts may make one, and what speaks against others."""

from roles.engine.params import EngineParams
from roles.engine.vllm.planning import VLLM
from roles.hardware import Hardware, declared_hardware
from roles.models import find
from roles.topology import ServiceSettings, plan_fleet
from roles.topology.clusters import clusters, describe_cluster

DEEPSEEK = find("deepseek-ai/DeepSeek-V3")
ASKED = EngineParams(max_model_len=8192, min_concurrency=8)
H100 = declared_hardware("8x NVIDIA H100 80GB HBM3", "nvlink")
A100 = declared_hardware("8x NVIDIA A100-SXM4-80GB", "nvlink")


def hosts(**machines: Hardware) -> dict[str, Hardware]:
    return machines


def test_two_matched_hosts_hold_what_one_does_not():
    (cluster,), problems = clusters(VLLM, DEEPSEEK, ASKED, hosts(b=H100, a=H100))
    assert (cluster.hosts, str(cluster.shape), problems) == (("a", "b"), "TP8×PP2", ())
    assert cluster.memory.fits
    assert describe_cluster(cluster).startswith(
        "a, b together: TP8×PP2, tensor parallel inside each host"
    )


def test_four_hosts_are_two_clusters_and_a_fifth_is_left():
    found, _ = clusters(VLLM, DEEPSEEK, ASKED, dict.fromkeys("edcba", H100))
    assert [one.hosts for one in found] == [("a", "b"), ("c", "d")]


def test_unmatched_hosts_are_refused_with_the_reason():
    found, problems = clusters(VLLM, DEEPSEEK, ASKED, hosts(a=H100, b=A100))
    assert found == ()
    assert problems[-1] == (
        "hosts of a cluster must be alike, and these are not: a: 8x NVIDIA H100 80GB HBM3 "
        "(81559 MiB); b: 8x NVIDIA A100-SXM4-80GB (81920 MiB)"
    )


def test_fast_links_make_a_mixture_of_experts_wide():
    h200 = declared_hardware("8x NVIDIA H200", "nvlink")
    params = EngineParams(max_model_len=32768, min_concurrency=64)
    (slow,), _ = clusters(VLLM, DEEPSEEK, params, hosts(a=h200, b=h200), {"a": 400, "b": 10})
    assert slow.data_parallel_size == 1 and str(slow.shape) == "TP8×PP2"
    (fast,), _ = clusters(VLLM, DEEPSEEK, params, hosts(a=h200, b=h200), {"a": 400, "b": 400})
    assert fast.data_parallel_size * fast.shape.gpus == 16
    assert fast.shape.expert_parallel and "experts over all GPUs" in describe_cluster(fast)
    assert "by 10 Gbit/s: from network_gbit_s 200 on" in describe_cluster(slow)
    assert "by 400 Gbit/s between them" in describe_cluster(fast)
    (unknown,), _ = clusters(VLLM, DEEPSEEK, params, hosts(a=h200, b=h200), {"a": 400})
    assert "by a network not stated: from network_gbit_s 200 on" in describe_cluster(unknown)
    # A dense model has no experts to spread.
    llama = find("meta-llama/Llama-3.1-405B-Instruct")
    (dense,), _ = clusters(VLLM, llama, ASKED, hosts(a=H100, b=H100), {"a": 400, "b": 400})
    assert dense.data_parallel_size == 1 and "network" not in describe_cluster(dense)


def test_a_host_without_its_like_is_no_cluster_that_is_too_small():
    l40s = declared_hardware("2x NVIDIA L40S")
    found, problems = clusters(VLLM, DEEPSEEK, ASKED, hosts(a=H100, b=l40s))
    assert found == () and [one for one in problems if one.startswith("no cluster of 1")] == []


def test_mixed_cards_within_a_host_make_no_cluster():
    mixed = declared_hardware("4x NVIDIA H100 80GB HBM3 + 4x NVIDIA A100-SXM4-80GB")
    found, (problem,) = clusters(VLLM, DEEPSEEK, ASKED, hosts(a=mixed, b=mixed))
    assert found == () and "mixed GPUs do not work together" in problem


def test_a_fleet_is_planned_over_the_hosts_that_hold_the_model_together():
    service = ServiceSettings.model_validate(
        {"name": "s", "model": "deepseek-ai/DeepSeek-V3", "max_model_len": 8192}
    )
    plan = plan_fleet(service, hosts(a=H100, b=H100))
    (replica,) = plan.replicas
    assert (replica.host, replica.hosts, str(replica.shape)) == ("a", ("a", "b"), "TP8×PP2")
    assert [one.hosts for one in plan.clusters] == [("a", "b")]
    follower = plan.on("b")
    assert follower and follower.replicas == () and [one.id for one in follower.parts] == ["a/s-0"]
