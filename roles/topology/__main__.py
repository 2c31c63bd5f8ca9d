"""`python -m roles.topology fleet INVENTORY`: the fleet's plan, with no host contacted."""

import argparse
import sys

from roles.fleet import DeclarationError
from roles.topology import explain


def main(arguments: list[str]) -> int:
    """Print the plan of an inventory; 0, or 1 with every problem on stderr."""
    parser = argparse.ArgumentParser(prog="python -m roles.topology", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fleet = commands.add_parser("fleet", help="plan every host of an inventory file")
    fleet.add_argument("inventory", help="for instance inventories/prod.py")
    options = parser.parse_args(arguments)
    # pyinfra is imported only where an inventory has to be read as pyinfra reads it.
    from pyinfra_cli.exceptions import UnexpectedExternalError

    from roles.fleet.inventory import load

    try:
        print(explain(load(options.inventory, secrets=False).plan), end="")
    except (DeclarationError, OSError, SyntaxError) as error:
        print(error, file=sys.stderr)
        return 1
    except UnexpectedExternalError as error:
        cause = error.exception
        print(f"{error.filename}: {type(cause).__name__}: {cause}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
