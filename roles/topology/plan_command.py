"""`plan`: the plan of one host for one model, one JSON object in, one out."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from roles.engine.engine import DEFAULT_KIND, engine
from roles.engine.tasks import usual_task
from roles.hardware import Gpu, Hardware, declared_links, slice_memory_mib
from roles.models import Count
from roles.plan import HostPlan, Plan
from roles.topology import messages
from roles.topology.candidates import Candidate
from roles.topology.cases import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    STRICT,
    GpuSettings,
    ModelCase,
    answered,
    model_of,
    without_nulls,
)
from roles.topology.choice import Objective, ObjectiveKind
from roles.topology.explain import explain
from roles.topology.head_line import head_line
from roles.topology.host_planner import host_plan, plannable, spec_of
from roles.topology.mixed import MixedReplica, describe_mixed
from roles.topology.named_gpus import named_gpu
from roles.topology.service_fields import DEFAULT_MIN_CONCURRENCY
from roles.topology.serving import Serving, serve
from roles.topology.settings import ServiceSettings

_PROFILE = re.compile(r"([1-7]c\.)?[1-7]g\.[1-9][0-9]{0,2}gb([+-][a-z.]{1,20})*")


class HostCase(BaseModel):
    """The GPUs of the host, in the driver's order, and how they are linked."""

    model_config = STRICT

    gpus: list[GpuSettings] = Field(min_length=1, max_length=64)
    links: Annotated[str, Field(max_length=2**16)] | None = Field(
        default=None, description='"nvlink", "pcie" or the text of nvidia-smi topo -m'
    )


class WorkloadCase(BaseModel):
    """The expected load of this host: concurrent requests, all of one size."""

    model_config = STRICT

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    concurrency: float | None = Field(default=None, gt=0, le=1e7, allow_inf_nan=False)


Milliseconds = Annotated[float, Field(gt=0, le=1e9)]


class ObjectiveCase(BaseModel):
    """The objective of the plan, with limits."""

    model_config = STRICT

    kind: ObjectiveKind = "throughput"
    ttft_limit_ms: Milliseconds | None = None
    itl_limit_ms: Milliseconds | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return without_nulls(data)


class PlanCase(ModelCase):
    """One host to plan."""

    host: HostCase
    workload: WorkloadCase = WorkloadCase()
    objective: ObjectiveKind | ObjectiveCase = "throughput"
    max_model_len: Count | None = Field(
        default=None, description="the longest request; the workload's unless said"
    )
    min_concurrency: Count = Field(
        default=DEFAULT_MIN_CONCURRENCY, description="requests of that length a replica must hold"
    )
    single_endpoint: bool = False
    price_per_month: Annotated[float, Field(ge=0, le=1e9)] | None = Field(
        default=None, description="of the host"
    )


def schema() -> dict[str, Any]:
    """The JSON schema of an input line, and a description of an output line."""
    return {"input": PlanCase.model_json_schema(), "output": _OUTPUT}


_OUTPUT = {
    "id": "of the case",
    "engine": "vllm, or llama.cpp for GPUs that differ and hold the model only together",
    "replicas": [
        {
            "gpus": "indexes, in the host's order",
            "tensor_parallel_size": "integer",
            "pipeline_parallel_size": "integer",
            "tensor_split": "with llama.cpp: GiB of room of each GPU, or its number of layers",
            "enable_expert_parallel": "true or false",
            "max_num_seqs": "integer; null is vLLM's own",
            "max_num_batched_tokens": "integer; null is vLLM's own",
            "gpu_memory_utilization": "number; null is vLLM's own",
            "enforce_eager": "true or false",
            "kv_cache_tokens": "integer",
        }
    ],
    "spare_gpus": "indexes",
    "expected": "an estimate for the whole host; null where no load or no rates are known",
    "why": "texts",
    "rejected": "texts",
    "warnings": "texts",
    "problems": "texts: why a kind of card, or the whole host, serves nothing",
    "summary": "what was asked, and what the plan holds and does",
    "error": "instead of a plan: why there is none",
    "remedies": "with error: what would make it fit",
}


def answers(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The plan of each line; {"id", "error", "remedies"} if there is none."""
    for answer in answered(lines, PlanCase, lambda case: _answer(case, *_planned(case))):
        yield {"remedies": [], **answer} if "error" in answer else answer


def explained(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The whole plan of each line as text; {"id", "error"} for an invalid line."""
    return answered(lines, PlanCase, lambda case: {"text": explain(_planned(case)[0], whole=True)})


def _planned(case: PlanCase) -> tuple[Plan, Serving]:
    hardware, service = plannable(_hardware(case.host)), _service(case)
    # The plan is for the newest build of the engine.
    spec = replace(spec_of(service, price=case.price_per_month), least_capability=None)
    host = host_plan(service, spec, "host", hardware)
    plan = Plan(service.name, service.model.id, (host,), load=spec.load)
    return plan, serve(spec, hardware)


def _service(case: PlanCase) -> ServiceSettings:
    """The service of a case; its fields are checked already, with wider limits."""
    work = case.workload
    output = work.output_tokens or OUTPUT_TOKENS
    inputs = work.input_tokens or INPUT_TOKENS
    length = case.max_model_len or inputs + output
    model = model_of(case, length)
    if length > model.context_limit_tokens > 0:
        raise ValueError(
            f"requests of {length} tokens are more than {model.context_limit_tokens}, the model's "
            f"limit; lower {'max_model_len' if case.max_model_len else 'workload.input_tokens'}"
        )
    objective = _objective(case)
    return ServiceSettings.model_construct(
        name="service",
        model=model,
        engine=DEFAULT_KIND,
        task=usual_task(model),
        max_model_len=length,
        min_concurrency=case.min_concurrency,
        concurrency=work.concurrency,
        input_tokens=inputs,
        output_tokens=output,
        objective=objective.kind,
        ttft_limit_ms=objective.ttft_limit_ms,
        itl_limit_ms=objective.itl_limit_ms,
        single_endpoint=case.single_endpoint,
        weights=case.model or "config.json",
        arguments={"dtype": case.dtype} if case.dtype else {},
    )


def _objective(case: PlanCase) -> Objective:
    objective = case.objective
    if isinstance(objective, str):
        return Objective(objective)
    return Objective(objective.kind, objective.ttft_limit_ms, objective.itl_limit_ms)


def _hardware(host: HostCase) -> Hardware:
    gpus = tuple(_gpu(index, gpu) for index, gpu in enumerate(host.gpus))
    return Hardware(gpus, declared_links(host.links, len(gpus)))


def _gpu(index: int, gpu: GpuSettings) -> Gpu:
    whole, _, profile = (gpu.name or "").partition(" MIG ")
    try:
        if profile:
            return _slice(index, gpu, whole, profile)
        known = named_gpu(gpu.name, gpu.memory_gib)
    except ValueError as error:
        raise ValueError(f"host.gpus[{index}]: {error}") from None
    return Gpu(
        index, known.name, round(known.total_mib), compute_capability=known.compute_capability
    )


def _slice(index: int, gpu: GpuSettings, whole: str, profile: str) -> Gpu:
    """A slice as `nvidia-smi -L` names it: its GPU, and its profile ("3g.40gb")."""
    if not _PROFILE.fullmatch(profile):
        raise ValueError(f"name: {profile!r} is no MIG profile; write it as in 3g.40gb")
    known = named_gpu(whole, None)
    memory_mib = round(gpu.memory_gib * 1024) if gpu.memory_gib else slice_memory_mib(profile)
    if memory_mib > known.total_mib:
        raise ValueError(
            f"name: a {profile} of {memory_mib} MiB is more than {known.name} has, "
            f"{known.total_mib:.0f} MiB; correct one of both"
        )
    return Gpu(
        index,
        f"{known.name} MIG {profile}",
        memory_mib,
        compute_capability=known.compute_capability,
        mig_profile=profile,
    )


def _answer(case: PlanCase, plan: Plan, serving: Serving) -> dict[str, Any]:
    (host,) = plan.hosts
    if serving.alternative:
        return _mixed_answer(case, serving.alternative, host)
    if not host.replicas:
        return {
            "id": case.id,
            "error": "; ".join(host.problems),
            "remedies": list(host.remedies),
            "why": [*host.rejected, *host.problems],
        }
    return {
        "id": case.id,
        "engine": engine(DEFAULT_KIND).name.lower(),
        "replicas": [_replica(one, group) for one in serving.chosen for group in one.groups],
        "spare_gpus": list(host.spare_gpus),
        "expected": _expected(serving.chosen),
        "why": list(host.reasons),
        "rejected": list(host.rejected),
        "warnings": list(host.warnings),
        "problems": list(host.problems),
        "summary": head_line(plan),
    }


def _mixed_answer(case: PlanCase, mixed: MixedReplica, host: HostPlan) -> dict[str, Any]:
    """The answer for cards of different kinds that hold the model only together."""
    replica = {
        "gpus": [gpu.index for gpu in mixed.gpus],
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": len(mixed.gpus),
        "tensor_split": list(mixed.candidate.shape.tensor_split),
    }
    return {
        "id": case.id,
        "engine": engine(mixed.kind).name.lower(),
        "replicas": [replica],
        "spare_gpus": [gpu for gpu in range(len(case.host.gpus)) if gpu not in replica["gpus"]],
        "expected": None,
        "why": [describe_mixed(mixed), f"it loads {mixed.files}"],
        "rejected": [*host.rejected, *host.problems],
        "warnings": [f"{engine(DEFAULT_KIND).name} wants equal GPUs; {messages.LAYERS_TAKE_TURNS}"],
    }


def _replica(one: Candidate, group: tuple[Gpu, ...]) -> dict[str, Any]:
    return {
        "gpus": [gpu.index for gpu in group],
        "tensor_parallel_size": one.shape.tensor_parallel,
        "pipeline_parallel_size": one.shape.pipeline_parallel,
        "enable_expert_parallel": one.shape.expert_parallel,
        **asdict(one.changed),
        "kv_cache_tokens": one.memory.kv_tokens,
        "expected": asdict(one.expected) if one.expected else None,
    }


def _expected(chosen: Iterable[Candidate]) -> dict[str, float] | None:
    """The estimate of the whole host: sums of rates, and the times of the slowest replica."""
    known = [(one.replicas, one.expected) for one in chosen if one.expected]
    if not known:
        return None
    return {
        "tokens_per_s": sum(count * one.tokens_per_s for count, one in known),
        "tokens_per_s_low": sum(count * one.tokens_per_s_low for count, one in known),
        "tokens_per_s_high": sum(count * one.tokens_per_s_high for count, one in known),
        "requests_per_s": sum(count * one.requests_per_s for count, one in known),
        "ttft_ms": max(one.ttft_ms for _, one in known),
        "tpot_ms": max(one.tpot_ms for _, one in known),
    }
