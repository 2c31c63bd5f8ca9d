"""`trust INVENTORY` records the SSH keys of an inventory's hosts, once."""

import argparse
import sys


def parser() -> argparse.ArgumentParser:
    """The commands and what they take."""
    top = argparse.ArgumentParser(prog="python -m roles.fleet", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    trusted = commands.add_parser("trust", help="record the hosts' SSH keys, once")
    trusted.add_argument("inventory", help="for instance inventories/prod.py")
    trusted.add_argument("--yes", action="store_true", help="record what is new without asking")
    return top


def main(arguments: list[str]) -> int:
    """Run the subcommand; 0, or 1 where something is wrong."""
    options = parser().parse_args(arguments)
    # It needs pyinfra, which `--help` does without.
    from roles.fleet.trust import trust

    try:
        return trust(options.inventory, options.yes)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
