"""Runs the planned replicas on GPU hosts."""

from collections.abc import Mapping

from pyinfra import host
from pyinfra.api import State
from pyinfra.api.deploy import deploy

from roles.engine import EngineSettings
from roles.launch import operations
from roles.launch.render import digests, host_files
from roles.launch.roll import Roll
from roles.launch.settings import LaunchSettings
from roles.launch.state import batches
from roles.topology import Plan, ServiceSettings

_rolls: dict[State, Roll] = {}


@deploy("Launch")
def replicas(
    settings: LaunchSettings,
    service: ServiceSettings,
    engine: EngineSettings,
    plan: Plan,
    address: str,
    balancers: Mapping[str, str],
    engine_key: str,
) -> None:
    """Start the replicas where nothing serves yet, all hosts at once; then roll over the others.

    `address` is this host's; `balancers` maps names to the addresses that may reach its engines.
    """
    own = plan.on(host.name)
    assert own is not None
    files = host_files(
        own, service, engine, settings, address, balancers.values(), engine_key, engine.hub_token
    )
    step = {
        "planned": own.replicas,
        "files": files,
        "digests": digests(own, files, engine),
        "engine": engine.version_name,
        "launch": settings,
        "model": service.model.name,
        "key": engine_key,
    }
    operations.replicas(name="Start replicas where none serves", **step)
    # One roll for the run: all hosts must see the same failures.
    roll = _rolls.setdefault(host.state, Roll(host.state, frozenset(balancers)))
    hosts = [entry.host for entry in plan.hosts]
    for batch in host.loop(batches(hosts, settings.roll_batches)):
        if host.name in batch:
            operations.replicas(name=f"Roll over {', '.join(batch)}", roll=roll, **step)
    operations.serving(
        name="Replicas serve",
        planned=own.replicas,
        launch=settings,
        model=service.model.name,
        key=engine_key,
    )
