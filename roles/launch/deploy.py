"""Runs the planned replicas on GPU hosts."""

from collections.abc import Callable, Collection

from pyinfra.api.deploy import deploy

from roles.launch import operations
from roles.launch.operations import Launch, Note
from roles.launch.state import LaunchState
from roles.rolling import HostStep


@deploy("Launch")
def start(
    launch: Launch,
    run_id: str,
    note: Note,
    known_state: Callable[[], LaunchState | None],
    on_change: Callable[[], None],
) -> None:
    """Start a host's replicas if none runs yet; otherwise the rolling update moves them."""
    operations.start_replicas(
        name="Start replicas where none serves",
        launch=launch,
        run_id=run_id,
        note=note,
        known_state=known_state,
        on_change=on_change,
    )


@deploy("Launch")
def move(
    launch: Launch,
    run_id: str,
    step: Callable[[], HostStep | None],
    on_moved: Callable[[Collection[str]], None],
    on_restored: Callable[[Collection[str]], None],
    batch: int,
) -> None:
    """Move a host's replicas of one batch to what is planned."""
    operations.move_replicas(
        name=f"Move batch {batch}",
        launch=launch,
        run_id=run_id,
        step=step,
        on_moved=on_moved,
        on_restored=on_restored,
    )


@deploy("Launch")
def serve(
    launch: Launch,
    skip_reasons: Callable[[], Collection[str]],
    refusals: Callable[[], Collection[str]] = tuple,
    on_result: Callable[[Collection[str], bool], None] = lambda names, serve: None,
) -> None:
    """Check that every replica of the host serves, once the rolling update is over."""
    operations.check_serving(
        name="Replicas serve",
        launch=launch,
        skip_reasons=skip_reasons,
        refusals=refusals,
        on_result=on_result,
    )
