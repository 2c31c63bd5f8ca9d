"""Moves a host's replicas from what runs to what is planned."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyinfra import host, logger
from pyinfra.api import StringCommand, operation

from roles.host import PROBE, SERVING, HostFile, SecretInput, bundle
from roles.host.outcome import failing
from roles.launch.facts import Launched, NotServing
from roles.launch.host_launch import HostLaunch
from roles.launch.roll import Roll
from roles.launch.state import to_do

HERE = Path(__file__).parent


@operation()
def replicas(launch: HostLaunch, roll: Roll, fresh_only: bool = False):
    """
    Bring a host's replicas to the plan; each must answer a real completion, or the old is put back.

    + launch: the host's plan with all that its files follow from, read when the run executes
    + roll: the roll of this run
    + fresh_only: leave a host that serves already to the roll
    """
    files = launch.files
    # Replicas that left the plan are found by their units, not by paths.
    state = host.get_fact(Launched, paths=[file.path for file in files])
    reasons = to_do(
        state,
        files,
        launch.digests(files),
        launch.engine.version_name,
        launch.settings.firewall and bool(launch.plan.replicas),
    )
    if not reasons:
        host.noop("all replicas run as planned")
        return
    if fresh_only and state.serving:
        roll.restarting.add(host.name)
        host.noop("replicas serve here: the roll changes them")
        return
    if not fresh_only and (stopped := roll.stopped_by()):
        roll.left_alone.add(host.name)
        message = f"left as it is, the old replicas serve on: {stopped} failed"
        host.log_styled(message, fg="yellow", log_func=logger.warning)
        host.noop(message)
        return
    program = bundle([PROBE, SERVING, HERE / "apply.py"], _task(launch, files))
    yield StringCommand("python3", "-", _stdin=program)


@operation()
def serving(launch: HostLaunch, roll: Roll):
    """
    Wait until each of a host's replicas answers a real completion; a host that booted a moment ago
    may be loading its weights still. Changes nothing, and fails the host where one does not serve.

    + launch: the host's plan, read when the run executes
    + roll: the roll of this run: what it left alone runs from old settings, and is not asked
    """
    if host.name in roll.left_alone:
        host.noop("the old replicas serve on")
        return
    if not host.state.is_executing:
        host.noop("replicas are asked when the run executes")
        return
    task = {
        "replicas": [{"name": one.name, "port": one.port} for one in launch.plan.replicas],
        "start_timeout_s": launch.settings.start_timeout_s,
        "model": launch.service.model.name,
        "key": launch.engine_key,
    }
    program = bundle([PROBE, SERVING, HERE / "await_serving.py"], task)
    said = host.get_fact(NotServing, _stdin=SecretInput(program))
    if said:
        yield failing(said)
    else:
        host.noop("all replicas serve")


def _task(launch: HostLaunch, files: Sequence[HostFile]) -> dict[str, Any]:
    planned, devices = launch.plan.replicas, launch.devices
    digests = launch.digests(files)
    return {
        "files": [
            {
                "path": file.path,
                "content": base64.b64encode(file.content.encode()).decode(),
                "state": file.state,
            }
            for file in files
        ],
        "replicas": [
            {
                "name": replica.name,
                "port": replica.port,
                "gpus": replica.gpus,
                "devices": [devices[gpu] for gpu in replica.gpus if gpu in devices],
                "digest": digests[replica.name],
            }
            for replica in planned
        ],
        "names": [replica.name for replica in planned],
        "engine": launch.engine.version_name,
        "keep": launch.engine.keep,
        "firewall": launch.settings.firewall and bool(planned),
        "user": launch.settings.user,
        "start_timeout_s": launch.settings.start_timeout_s,
        "model": launch.service.model.name,
        "key": launch.engine_key,
    }
