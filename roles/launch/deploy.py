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
    found: Callable[[], LaunchState | None],
    changed: Callable[[], None],
) -> None:
    """Start the replicas of a host where nothing serves yet; others are left to the rolling
    update."""
    operations.start_replicas(
        name="Start replicas where none serves",
        launch=launch,
        run_id=run_id,
        note=note,
        found=found,
        changed=changed,
    )


@deploy("Launch")
def move(
    launch: Launch,
    run_id: str,
    turn: Callable[[], HostStep | None],
    done: Callable[[Collection[str]], None],
    put_back: Callable[[Collection[str]], None],
    batch: int,
) -> None:
    """Move the replicas of a host whose turn it is in a batch to what is planned."""
    operations.move_replicas(
        name=f"Move batch {batch}",
        launch=launch,
        run_id=run_id,
        turn=turn,
        done=done,
        put_back=put_back,
    )


@deploy("Launch")
def serve(
    launch: Launch,
    left: Callable[[], Collection[str]],
    refused: Callable[[], Collection[str]] = tuple,
    seen: Callable[[Collection[str], bool], None] = lambda names, serve: None,
) -> None:
    """See that every replica of the host serves, now that the rolling update is over."""
    operations.check_serving(
        name="Replicas serve", launch=launch, left=left, refused=refused, seen=seen
    )
