"""The fleet's plan with no host contacted, and predictions of vLLM's memory.

`fleet INVENTORY` prints the plan; `predict` and `plan` read JSON lines and write JSON lines.
"""

import argparse
import json
import sys
from pathlib import Path

from roles.plan import plan_differences, saved
from roles.topology import explain


def main(arguments: list[str]) -> int:
    """Run one subcommand; 0, or 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m roles.topology", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fleet = commands.add_parser("fleet", help="plan every host of an inventory file")
    fleet.add_argument("inventory", help="for instance inventories/prod.py")
    fleet.add_argument(
        "--save", action="store_true", help="write inventories/plans/<inventory>.yaml"
    )
    prediction = commands.add_parser("predict", help="memory of vLLM starts, JSON lines")
    prediction.add_argument("--schema", action="store_true", help="print the JSON schemas instead")
    plan = commands.add_parser("plan", help="plans of single hosts, JSON lines")
    plan.add_argument("--schema", action="store_true", help="print the JSON schemas instead")
    options = parser.parse_args(arguments)
    if options.command == "fleet":
        return _fleet(options.inventory, options.save)
    return _answer_lines(options.command, options.schema)


def _answer_lines(name: str, only_schema: bool) -> int:
    """Answer every line of stdin; 1 where one was wrong."""
    # A fleet's plan does without the models of these lines, and starts faster.
    from roles.topology import plan_command, predict

    command = predict if name == "predict" else plan_command
    if only_schema:
        print(json.dumps(command.schema(), indent=2))
        return 0
    wrong = False
    for answer in command.answers(sys.stdin):
        print(json.dumps(answer, ensure_ascii=False))
        wrong |= "error" in answer
    return int(wrong)


def _fleet(inventory: str, save: bool) -> int:
    """Print the plan of an inventory, and save it if asked; 1 with every problem on stderr."""
    # The other subcommands do without inventories, and start faster.
    from roles.declaration import saved_plan_of, write_whole
    from roles.fleet.inventory import load

    try:
        plans = load(inventory, secrets=False).plans
        print("\n".join(map(explain, plans)), end="")
        file = saved_plan_of(Path(inventory))
        if save:
            write_whole(file, saved(plans))
            print(f"saved in {file}")
        elif file.is_file():
            changes = plan_differences(file.read_text(encoding="utf-8"), plans)
            differs = "\n".join([f"\nnot the plan saved in {file}:", *changes])
            print(differs if changes else "as saved")
    except (ValueError, OSError, SyntaxError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
