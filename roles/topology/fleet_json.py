"""A fleet's plan as JSON, described by docs/fleet.schema.json. Pure."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from roles.hardware import summary
from roles.plan import Cluster, HostPlan, Plan, Replica
from roles.topology.head_line import head_line, requests_at_once

# Version of the JSON. Any change of its fields raises it.
SCHEMA = 5


def fleet_json(
    plans: Sequence[Plan], saved_plan: str | None, plan_differences: Sequence[str] | None
) -> dict[str, Any]:
    """All plans. `saved_plan` is the file of the saved plan, None if there is none;
    `plan_differences` describe the differences from it."""
    return {
        "schema": SCHEMA,
        "services": [_service(plan) for plan in plans],
        "saved_plan": saved_plan,
        "plan_differences": None if plan_differences is None else list(plan_differences),
    }


def _service(plan: Plan) -> dict[str, Any]:
    return {
        "service": plan.service,
        "model": plan.model,
        "summary": head_line(plan),
        "deployed": bool(plan.replicas),
        "hosts": [_host(host) for host in plan.hosts],
        "clusters": [_cluster(cluster) for cluster in plan.clusters],
        "cluster_problems": list(plan.cluster_problems),
    }


def _cluster(cluster: Cluster) -> dict[str, Any]:
    return {
        "hosts": list(cluster.hosts),
        "tensor_parallel_size": cluster.shape.tensor_parallel,
        "pipeline_parallel_size": cluster.shape.pipeline_parallel,
        "enable_expert_parallel": cluster.shape.expert_parallel,
        "data_parallel_size": cluster.data_parallel_size,
    }


def _host(host: HostPlan) -> dict[str, Any]:
    return {
        "host": host.host,
        "gpus": summary(host.gpus),
        "replicas": [_replica(replica) for replica in host.replicas],
        "parts": [
            {
                "name": part.name,
                "head": part.host,
                "rank": part.hosts.index(host.host),
                "gpus": list(part.gpus),
            }
            for part in host.parts
        ],
        "spare_gpus": list(host.spare_gpus),
        "reasons": list(host.reasons),
        "rejected": list(host.rejected),
        "remedies": list(host.remedies),
        "warnings": list(host.warnings),
        "problems": list(host.problems),
    }


def _replica(replica: Replica) -> dict[str, Any]:
    shape, memory = replica.shape, replica.memory
    return {
        "name": replica.name,
        "engine": replica.engine,
        "gpus": list(replica.gpus),
        "tensor_parallel_size": shape.tensor_parallel,
        "pipeline_parallel_size": shape.pipeline_parallel,
        "enable_expert_parallel": shape.expert_parallel,
        "tensor_split": list(shape.tensor_split),
        "members": [{"host": host, "gpus": list(gpus)} for host, gpus in replica.members],
        "executor": replica.executor if replica.members else None,
        "port": replica.port,
        "max_model_len": replica.max_model_len,
        "max_num_seqs": replica.max_num_seqs,
        "max_num_batched_tokens": replica.max_num_batched_tokens,
        "gpu_memory_utilization": replica.gpu_memory_utilization,
        "enforce_eager": replica.enforce_eager,
        "p2p": replica.p2p,
        "kv_cache_tokens": memory.kv_tokens,
        "requests_at_once": requests_at_once(replica),
        "expected": asdict(replica.expected) if replica.expected else None,
    }
