"""Makes all observations on a host in one SSH command; its text follows that of `roles.host.probe`.

Standard library only. It prints one line of JSON in any case, even if engines hang. The outputs of
programs in it are read by `roles.validation.observations`.
"""

import json
import os
import re
import subprocess
import threading
import time

from roles.validation.recognition import recognise

PROC = "/proc"
COMMAND_TIMEOUT_S = 20
# Where a vendor's tool may be beside the PATH of sudo.
TOOL_FOLDERS = "/opt/rocm/bin"
SAMPLE_INTERVAL_S = 0.5
LOAD_PROMPT = "Write a long story about a lighthouse."


def run_command(*argv):
    """The result of a program: {ok, text}; where it failed, text says why."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"ok": False, "text": str(error)}
    out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    if done.returncode:
        return {"ok": False, "text": err.strip() or out.strip() or f"exit {done.returncode}"}
    return {"ok": True, "text": out}


def units(names):
    """The state, main process and restarts of each unit, as systemctl prints them."""
    properties = "--property=ActiveState,MainPID,NRestarts"
    return {name: run_command("systemctl", "show", properties, name)["text"] for name in names}


def cgroups(text, pid):
    """The text of /proc/PID/cgroup for each process in a tool's output; None where it is hidden."""
    found = {}
    for number in re.findall(pid, text, re.MULTILINE):
        try:
            with open(os.path.join(PROC, number, "cgroup")) as file:
                found[number] = file.read()
        except OSError:
            found[number] = None
    return found


def load_worker(proofs, replica, task, is_over):
    """Ask a replica for completions, or for what its task is, one after another, until that is over
    or the first error."""
    # Where nothing is generated the text is as long as an answer might be, two tokens a word.
    generates = replica["task"] == "generate"
    prompt = LOAD_PROMPT if generates else "a " * (task["load_max_tokens"] // 2)
    done = {"name": replica["name"], "completed": 0, "failed": 0, "tokens": 0, "error": ""}
    while not is_over() and not done["failed"]:
        answer = proofs[replica["task"]](
            replica["base_url"],
            replica["key"],
            replica["model"],
            timeout_s=task["completion_timeout_s"],
            max_tokens=task["load_max_tokens"],
            prompt=prompt,
        )
        if answer["ok"]:
            done["completed"] += 1
            done["tokens"] += answer["tokens"]
        else:
            done.update(failed=1, error=answer["error"])
    return done


def total(results, name, seconds):
    """The sum of the results of all workers on one replica."""
    results = [done for done in results if done["name"] == name]
    counts = {key: sum(done[key] for done in results) for key in ("completed", "failed", "tokens")}
    error = next((done["error"] for done in results if done["error"]), "")
    return dict(counts, error=error, seconds=round(seconds, 1))


def sample(samples, command, end):
    """Append the GPUs' utilization to `samples` at short intervals until `end`."""
    while time.monotonic() + SAMPLE_INTERVAL_S < end:
        time.sleep(SAMPLE_INTERVAL_S)
        samples.append(run_command(*command)["text"])


def load(seen, replicas, task, proofs, in_parallel):
    """Put load on all replicas at once, and sample the GPUs meanwhile."""
    start = time.monotonic()
    end = start + task["load_s"]
    seen["samples"] = []
    asked = (seen["samples"], task["gpus"]["load"], end)
    sampler = threading.Thread(target=sample, args=asked, daemon=True)
    sampler.start()

    def is_over():
        # A sample that comes late, as on a busy host, would find idle GPUs.
        return time.monotonic() >= end and not sampler.is_alive()

    slots = [replica for replica in replicas for _ in range(task["load_concurrency"])]
    results = in_parallel(lambda replica: load_worker(proofs, replica, task, is_over), slots)
    sampler.join(COMMAND_TIMEOUT_S)
    seconds = time.monotonic() - start
    seen["loads"] = {
        replica["name"]: total(results, replica["name"], seconds) for replica in replicas
    }


def recognitions(replicas, timeout_s, in_parallel):
    """What each replica recognises of what it must, by its name and by ability."""

    def one(replica):
        asked = (replica["base_url"], replica["key"], replica["model"], timeout_s)
        return replica["name"], {name: recognise(name, *asked) for name in replica["abilities"]}

    return {name: found for name, found in in_parallel(one, replicas) if found}


def adapted(replicas, timeout_s, chat, in_parallel):
    """A completion of each LoRA adapter of each replica, by its name and by adapter."""

    def one(replica):
        url, key, names = replica["base_url"], replica["key"], replica["adapters"].items()
        return replica["name"], {name: chat(url, key, asked, timeout_s) for name, asked in names}

    return {name: found for name, found in in_parallel(one, replicas) if found}


def gather(seen, task, proofs, chat_stream, served_models, in_parallel):
    """Fill `seen` step by step, so that it can be printed at any time."""
    replicas, timeout_s = task["replicas"], task["completion_timeout_s"]
    names = [replica["unit"] for replica in replicas]

    def ask(function_of, asked=replicas):
        def one(replica):
            function = function_of(replica)
            answer = function(replica["base_url"], replica["key"], replica["model"], timeout_s)
            return replica["name"], answer

        return dict(in_parallel(one, asked))

    def listed(base_url, key, model, timeout_s):
        return served_models(base_url, key, min(timeout_s, COMMAND_TIMEOUT_S))

    seen["units_before"] = units(names)
    seen["completions"] = ask(lambda replica: proofs[replica["task"]])
    seen["models"] = ask(lambda replica: listed)
    generating = [replica for replica in replicas if replica["task"] == "generate"]
    seen["streams"] = ask(lambda replica: chat_stream, generating)
    seen["adapted"] = adapted(replicas, timeout_s, proofs["generate"], in_parallel)
    seen["recognised"] = recognitions(replicas, timeout_s, in_parallel)
    asked = task["gpus"]
    seen["vendor"] = asked["vendor"]
    seen["gpus"] = {name: run_command(*command) for name, command in asked["commands"].items()}
    seen["cgroups"] = cgroups(seen["gpus"]["processes"]["text"], asked["pid"])
    serving = [replica for replica in replicas if seen["completions"][replica["name"]]["ok"]]
    if serving:
        load(seen, serving, task, proofs, in_parallel)
    seen["units_after"] = units(names)


def main(task, proofs, chat_stream, served_models, in_parallel):
    """Gather observations in a thread, and print them when it is done or time is up."""
    seen = {}
    os.environ["PATH"] = os.environ.get("PATH", "") + ":" + TOOL_FOLDERS

    def work():
        try:
            gather(seen, task, proofs, chat_stream, served_models, in_parallel)
        except Exception as error:
            seen["unfinished"] = f"{type(error).__name__}: {error}"

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(task["deadline_s"])
    if worker.is_alive():
        seen["unfinished"] = f"not done after {task['deadline_s']:g} s"
    print(json.dumps(dict(seen)), flush=True)
    # An open request to an engine that hangs must not keep this process alive.
    os._exit(0)
