"""The checks of validation, made from what was observed. Pure."""

import re
from collections.abc import Sequence
from dataclasses import replace

from roles.checks import Check, Outcome, of_host, worst
from roles.host.probe import RELATED
from roles.validation.observations import (
    Completion,
    GpuProcess,
    GpuUse,
    HostObservations,
    PlannedReplica,
    Recognition,
)
from roles.validation.settings import ValidationSettings


def judge_host(
    host: str,
    replicas: Sequence[PlannedReplica],
    seen: HostObservations,
    settings: ValidationSettings,
) -> list[Check]:
    """All checks of one host, by replica."""
    checks: list[Check] = []
    if seen.unfinished:
        remedy = "See the replicas' logs (journalctl -u UNIT); the rest was not checked."
        checks.append(Check("host", "", "fail", seen.unfinished, remedy))
    if seen.gpu_error:
        evidence = f"GPUs could not be read: {seen.gpu_error}"
        remedy = f"Run {seen.gpu_tool} on the host; check its driver."
        checks.append(Check("gpus", "", "fail", evidence, remedy))
    for replica in replicas:
        checks += _replica_checks(replica, seen, settings)
    return of_host(host, checks)


def judge_unobserved(host: str) -> list[Check]:
    """The check of a host whose program gave no usable answer."""
    evidence = "not validated: the host's python3 gave no answer (its output is above)"
    remedy = "Check ssh, sudo and python3 there."
    return of_host(host, [Check("host", "", "fail", evidence, remedy)])


def _replica_checks(
    replica: PlannedReplica, seen: HostObservations, settings: ValidationSettings
) -> list[Check]:
    """The checks of one replica in the order of the table.

    What was not observed gives no check; the check "host" says so.
    """
    found = []
    if completion := seen.completions.get(replica.name):
        found += [judge_proof(replica, completion)]
        found += judge_identity(replica, completion, seen.models.get(replica.name, ()))
    if stream := seen.streams.get(replica.name):
        found += [judge_completion("stream", replica.name, stream, _see_log(replica))]
    if completion and completion.ok and not seen.unfinished:
        found += judge_adapters(replica, seen)
    if replica.name in seen.recognised or (replica.abilities and not seen.unfinished):
        answers = seen.recognised.get(replica.name, {})
        unanswered = Recognition(ok=False, error="the host did not ask for it")
        for ability in replica.abilities:
            answer = answers.get(ability, unanswered)
            found += [judge_recognition(ability, replica.name, answer)]
    if seen.gpus:
        found += [judge_processes(replica, seen, settings), judge_memory(replica, seen, settings)]
    if replica.name in seen.loads:
        found += [judge_load(replica, seen)]
        # The driver reports the utilization of a GPU, but not of its slices.
        if seen.gpus and set(replica.gpus) - set(replica.sliced):
            found += [judge_utilization(replica, seen, settings)]
    if replica.unit in seen.after:
        found += [judge_stability(replica, seen)]
    return found


def _see_log(replica: PlannedReplica) -> str:
    return f"See its log: sudo journalctl -u {replica.unit} --no-pager -n 200"


# What proves each task, by the name of its check.
PROVED = {"generate": "completion", "embed": "embedding", "rerank": "ranking"}


def judge_proof(replica: PlannedReplica, answer: Completion) -> Check:
    """Whether a replica did what its service is for: the length of a vector, and the order of
    documents, show that it runs with the right model as planned."""
    name, subject = PROVED[replica.task], replica.name
    if not answer.ok or replica.task == "generate":
        return judge_completion(name, subject, answer, _see_log(replica))
    if replica.task == "embed":
        planned = replica.embedding_size
        evidence = f"a vector of {answer.length} numbers in {answer.seconds} s, planned {planned}"
        remedy = "Set services[].embedding_size where it is right; else it is another model."
        return _pass_or_fail(name, subject, answer.length == planned, evidence, remedy)
    good = tuple(answer.order[:1]) == (RELATED,)
    put = "puts the document that answers a question"
    evidence = f"{put} {'first' if good else 'last'}, in {answer.seconds} s"
    remedy = "It is no model that ranks documents, or lacks its template: see its page."
    return _pass_or_fail(name, subject, good, evidence, remedy)


def judge_completion(name: str, subject: str, answer: Completion, remedy: str) -> Check:
    """Whether a completion, streamed or not, succeeded."""
    if not answer.ok:
        return Check(name, subject, "fail", answer.error, remedy)
    if answer.chunks is not None:
        return Check(name, subject, "pass", f"{answer.chunks} chunks")
    return Check(name, subject, "pass", f"{answer.tokens} token in {answer.seconds} s")


# The option that names the parser, and what is expected of an answer.
_PARSERS = {
    "tool_call": ("tool-call-parser", "a tool call"),
    "reasoning": ("reasoning-parser", "reasoning"),
}


def judge_recognition(ability: str, subject: str, answer: Recognition) -> Check:
    """Whether a replica recognised a tool call, or reasoning, in what its model wrote.

    A model that did neither gets a warning: that says nothing of the parser.
    """
    option, wanted = _PARSERS.get(ability, (ability, ability))
    remedy = f"Set the {option} of this model in the service's arguments, or take it out there."
    if not answer.ok:
        return Check(ability, subject, "fail", answer.error, remedy)
    if answer.found:
        return Check(ability, subject, "pass", answer.found)
    evidence = f"the answer has {wanted} in its text: {answer.text!r}"
    if answer.marked:
        return Check(ability, subject, "fail", evidence, remedy)
    evidence = f"asked for {wanted}, the model wrote {answer.text!r}"
    return Check(ability, subject, "warn", evidence, "Try it with a prompt of your own.")


def judge_adapters(replica: PlannedReplica, seen: HostObservations) -> list[Check]:
    """Whether a replica lists each of its LoRA adapters, and answers by it."""
    found = []
    listed = seen.models.get(replica.name, ())
    answers = seen.adapted.get(replica.name, {})
    for name, asked in replica.adapters.items():
        answer = answers.get(name, Completion(ok=False, error="the host did not ask for it"))
        subject = f"{replica.name}: {name}"
        if answer.ok and name not in listed:
            evidence = f"it lists {', '.join(listed) or 'no model'}"
            found.append(Check("adapter", subject, "fail", evidence, _see_log(replica)))
            continue
        check = judge_completion("adapter", subject, answer, _see_log(replica))
        found.append(replace(check, evidence=f"{check.evidence}, asked for {asked}"))
    return found


def judge_identity(
    replica: PlannedReplica, answer: Completion, names: Sequence[str] = ()
) -> list[Check]:
    """Whether the engine that answered serves the planned model in the planned shape.

    `names` are what it says it serves: some engines answer to any name, and repeat it. Some name
    version and TP in `system_fingerprint`; for others the shape is not checked.
    """
    found = []
    serves = names or ([] if answer.model is None else [answer.model])
    if serves:
        evidence = f"serves {', '.join(serves)}, planned {replica.model}"
        remedy = "Another engine has the port: ss -ltnp."
        # A registry's names end in a tag, "latest" unless another is said.
        good = replica.model in {name.removesuffix(":latest") for name in serves}
        found.append(_pass_or_fail("model", replica.name, good, evidence, remedy))
    if match := re.search(r"-tp([0-9]{1,4})(?:-|\Z)", answer.fingerprint or ""):
        planned = replica.tensor_parallel
        evidence = f"TP{match[1]}, planned TP{planned} ({answer.fingerprint})"
        remedy = "It runs with another configuration: restart its unit."
        good = int(match[1]) == planned
        found.append(_pass_or_fail("shape", replica.name, good, evidence, remedy))
    return found


def _pass_or_fail(name: str, subject: str, good: bool, evidence: str, remedy: str) -> Check:
    if good:
        return Check(name, subject, "pass", evidence)
    return Check(name, subject, "fail", evidence, remedy)


def judge_processes(
    replica: PlannedReplica, seen: HostObservations, settings: ValidationSettings
) -> Check:
    """Whether each planned GPU runs a process of the replica's unit and no other process."""
    if seen.process_error:
        return Check(
            "process", replica.name, "fail", f"processes could not be read: {seen.process_error}"
        )
    listed = any(state.processes for state in seen.gpus.values())
    judged = [
        _gpu_processes(gpu, replica, seen.gpus.get(gpu), listed, settings.minimum_memory_mib)
        for gpu in replica.gpus
    ]
    remedy = (
        f"Compare systemctl status {replica.unit} with {seen.gpu_tool}; stop what is not planned."
    )
    return _worst("process", replica.name, judged, remedy)


def _gpu_processes(
    gpu: int, replica: PlannedReplica, state: GpuUse | None, listed: bool, minimum_mib: int
) -> tuple[Outcome, str]:
    if state is None:
        return "fail", f"GPU {gpu} is not there"
    unit = replica.unit
    own = [process for process in state.processes if process.belongs_to(unit)]
    hidden = [process for process in state.processes if process.cgroup is None]
    foreign = [process for process in state.processes if process not in own + hidden]
    if gpu in replica.sliced:
        # Other replicas may use other slices of this GPU.
        template = f"{unit.partition('@')[0]}@"
        foreign = [p for p in foreign if not (p.unit or "").startswith(template)]
    if foreign:
        # A desktop's compositor is a compute process too, but a small one; another engine is not.
        small = all((process.memory_mib or minimum_mib) < minimum_mib for process in foreign)
        named = ", ".join(map(_process_name, foreign))
        return "warn" if small and own else "fail", f"GPU {gpu}: {named} is not of {unit}"
    if hidden or (not listed and (state.memory_mib or 0) >= minimum_mib):
        return "warn", f"GPU {gpu}: its processes cannot be seen from here (container, WSL)"
    if not own:
        return "fail", f"GPU {gpu}: no process of {unit}"
    return "pass", f"GPU {gpu}: pid {', '.join(process.pid for process in own)}"


def _process_name(process: GpuProcess) -> str:
    owner = f" of {process.unit}" if process.unit else ""
    memory = "unknown memory" if process.memory_mib is None else f"{process.memory_mib} MiB"
    return f"pid {process.pid} {process.name}{owner} ({memory})"


def judge_memory(
    replica: PlannedReplica, seen: HostObservations, settings: ValidationSettings
) -> Check:
    """Whether each planned GPU has memory in use."""
    judged: list[tuple[Outcome, str]] = []
    for gpu in replica.gpus:
        state = seen.gpus.get(gpu)
        if state is None:
            judged.append(("fail", f"GPU {gpu} is not there"))
        elif state.memory_mib is None:
            judged.append(("warn", f"GPU {gpu}: the driver does not say"))
        else:
            held = state.memory_mib >= settings.minimum_memory_mib
            judged.append(("pass" if held else "fail", f"GPU {gpu}: {state.memory_mib} MiB"))
    return _worst(
        "memory", replica.name, judged, "The engine does not use this GPU: check its configuration."
    )


def judge_load(replica: PlannedReplica, seen: HostObservations) -> Check:
    """Whether a replica answered all that it was asked under load."""
    load = seen.loads[replica.name]
    rate = load.tokens / load.seconds if load.seconds else 0
    done = "completions" if replica.task == "generate" else "requests"
    evidence = f"{load.completed} {done} in {load.seconds:g} s, {rate:.0f} tokens/s"
    if load.completed and not load.failed:
        return Check("load", replica.name, "pass", evidence)
    evidence = f"{load.failed} failed, {evidence}: {load.error or 'no answer in time'}"
    return Check(
        "load", replica.name, "fail", evidence, f"See the log: journalctl -u {replica.unit}."
    )


def level(samples: Sequence[int]) -> int:
    """How busy a GPU was: the upper quartile of its samples, in percent.

    The mean would blame the ramp at both ends of a short load, and the maximum would let one stray
    sample hide an idle GPU; this is what the GPU reached for at least a quarter of the time.
    """
    return sorted(samples)[-(-3 * len(samples) // 4) - 1]


def judge_utilization(
    replica: PlannedReplica, seen: HostObservations, settings: ValidationSettings
) -> Check:
    """Whether each planned GPU worked under load.

    Idle GPUs fail. Partly busy ones are warned about, except where GPUs take turns (pipeline and
    layer splits).
    """
    busy = 0 if replica.pipeline_parallel > 1 else settings.busy_utilization_percent
    idle = settings.idle_utilization_percent
    judged: list[tuple[Outcome, str]] = []
    for gpu in replica.gpus:
        if gpu in replica.sliced:
            continue
        state = seen.gpus.get(gpu)
        samples = state.utilization_percent if state else ()
        if not samples:
            judged.append(("warn", f"GPU {gpu}: utilization could not be read"))
            continue
        value = level(samples)
        outcome: Outcome = "fail" if value <= idle else "warn" if value < busy else "pass"
        mean = round(sum(samples) / len(samples))
        judged.append((outcome, f"GPU {gpu}: {value}% (mean {mean}%, max {max(samples)}%)"))
    remedy = "Idle: the shape is not the planned one. Partly busy: it waits for the others."
    return _worst("utilization", replica.name, judged, remedy)


def judge_stability(replica: PlannedReplica, seen: HostObservations) -> Check:
    """Whether the replica's unit ran all the time, in the same process."""
    before, after = seen.before.get(replica.unit), seen.after[replica.unit]
    remedy = f"See why: journalctl -u {replica.unit}."
    if after.active != "active" or not after.main_pid:
        evidence = f"{replica.unit} is {after.active}, main pid {after.main_pid}"
        return Check("stability", replica.name, "fail", evidence, remedy)
    if before != after:
        was = f"main pid {before.main_pid}, {before.restarts} restarts" if before else "unknown"
        now = f"main pid {after.main_pid}, {after.restarts} restarts"
        return Check(
            "stability", replica.name, "fail", f"restarted during the test: {was} → {now}", remedy
        )
    return Check("stability", replica.name, "pass", f"main pid {after.main_pid}, no restart")


def _worst(name: str, subject: str, judged: Sequence[tuple[Outcome, str]], remedy: str) -> Check:
    """One check of all GPUs: the worst outcome, and the evidence of each."""
    if not judged:
        return Check(name, subject, "fail", "no GPU is planned for it")
    outcome = worst(outcome for outcome, _ in judged)
    evidence = "; ".join(text for _, text in judged)
    return Check(name, subject, outcome, evidence, "" if outcome == "pass" else remedy)
