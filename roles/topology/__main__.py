"""Plans a fleet without contacting a host, and predicts vLLM's memory.

`fleet INVENTORY` prints the plan (`--json` for programs), `size MODEL` the cards that a service
runs on; `predict` and `plan` read JSON lines and write JSON lines.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from roles.host.command import run, stdin_lines
from roles.plan import Plan, plan_differences, saved
from roles.topology import explain, not_deployed_yet, size_command
from roles.topology.explain import wrapped

_NO_LINE = "stdin has no line; give one JSON object a line"


def parser() -> argparse.ArgumentParser:
    """The commands and what they take."""
    top = argparse.ArgumentParser(prog="python -m roles.topology", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    fleet = commands.add_parser("fleet", help="plan every host of an inventory file")
    fleet.add_argument("inventory", help="for instance inventories/prod.py")
    fleet.add_argument(
        "--save", action="store_true", help="write inventories/plans/<inventory>.yaml"
    )
    fleet.add_argument(
        "--json", action="store_true", help="print it as docs/fleet.schema.json describes it"
    )
    fleet.add_argument(
        "--explain", action="store_true", help="with memory sums and rejected shapes"
    )
    prediction = commands.add_parser("predict", help="memory of vLLM starts, JSON lines")
    prediction.add_argument("--schema", action="store_true", help="print the JSON schemas instead")
    plan = commands.add_parser("plan", help="plans of single hosts, JSON lines")
    plan.add_argument("--schema", action="store_true", help="print the JSON schemas instead")
    plan.add_argument("--explain", action="store_true", help="print whole plans as text instead")
    size_command.add_arguments(
        commands.add_parser(
            "size", help="the cards on which a service runs, at what speed and cost"
        )
    )
    return top


def main(arguments: list[str]) -> int:
    """Run one subcommand; 0, or 1 where something is wrong."""
    options = parser().parse_args(arguments)
    if options.command == "fleet":
        return _fleet(options.inventory, options.save, options.json, options.explain)
    if options.command == "size":
        return _size(options)
    if options.command == "plan" and options.explain:
        return _explain_lines()
    return _answer_lines(options.command, options.schema)


def _answer_lines(name: str, only_schema: bool) -> int:
    """Answer every line of stdin; return 1 if a line was invalid or there was none."""
    # Imported here, so that `fleet` starts faster.
    from roles.topology import plan_command, predict

    command = predict if name == "predict" else plan_command
    if only_schema:
        print(json.dumps(command.schema(), indent=2))
        return 0
    try:
        lines = stdin_lines()
        wrong = [_print_answer(answer) for answer in command.answers(lines)]
    except ValueError as error:
        return _refused(error)
    return int(any(wrong)) if wrong else _refused(_NO_LINE)


def _explain_lines() -> int:
    """Print the plan of every line of stdin as text; return 1 if a line was invalid."""
    from roles.topology import plan_command

    wrong = []
    try:
        for answer in plan_command.explained(stdin_lines()):
            wrong.append("error" in answer)
            print(answer.get("text") or f"{answer['error']}")
    except ValueError as error:
        return _refused(error)
    return int(any(wrong)) if wrong else _refused(_NO_LINE)


def _print_answer(answer: Mapping[str, Any]) -> bool:
    """Print an answer; return whether it is an error."""
    print(json.dumps(answer, ensure_ascii=False))
    return "error" in answer


def _fleet(inventory: str, save: bool, as_json: bool, whole: bool) -> int:
    """Print the plan of an inventory and save it if requested; on errors return 1, with all on
    stderr."""
    # Imported here, so that the other subcommands start faster.
    from roles.declaration import saved_plan, saved_plan_of, write_whole
    from roles.fleet.inventory import load
    from roles.topology.fleet_json import fleet_json

    try:
        plans = load(inventory, secrets=False, clusters=True).plans
        unserved = [plan for plan in plans if plan.clusters and not plan.replicas]
        file = saved_plan_of(Path(inventory))
        if save and not unserved:
            # Saving also replaces a damaged file.
            write_whole(file, saved(plans))
        before = saved_plan(Path(inventory))
    except (ValueError, OSError) as error:
        return _refused(error)
    changes = None if before is None else plan_differences(before, plans)
    if as_json:
        known = None if changes is None else str(file)
        print(json.dumps(fleet_json(plans, known, changes), indent=2))
        return _without_hosts(unserved)
    print("\n".join(explain(plan, whole) for plan in plans), end="")
    if not whole:
        print("\nMemory sums and rejected shapes: --explain")
    if save and not unserved:
        print(f"saved in {file}")
    elif changes is not None:
        print(_difference(file, changes))
    return _without_hosts(unserved)


def _difference(file: Path, changes: Sequence[str]) -> str:
    if not changes:
        return "as saved"
    return "\n".join([f"\nnot the plan saved in {file}:", *(f"  {one}" for one in changes)])


def _without_hosts(plans: Sequence[Plan]) -> int:
    """Say of plans that no deploy starts why not; 1 if there is one."""
    for plan in plans:
        print(wrapped(f"not deployed yet: {not_deployed_yet(plan)}"), file=sys.stderr)
    return int(bool(plans))


def _size(options: argparse.Namespace) -> int:
    """Print the sizes of a service; on errors return 1."""
    try:
        services = []
        if options.inventory is not None and options.model is None:
            # Imported here, so that a table of a model starts faster.
            from roles.fleet.inventory import load

            fleet = load(options.inventory, secrets=False, clusters=True)
            services = [service for service, _ in fleet.services]
        print(size_command.size(options, services))
    except (ValueError, OSError) as error:
        return _refused(error)
    return 0


def _refused(problem: object) -> int:
    print(problem, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(run(main))
