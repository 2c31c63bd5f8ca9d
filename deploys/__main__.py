"""Print the folder of the deploys, for a repository that has them as a package."""

import argparse
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The parser of the arguments: there are none."""
    return argparse.ArgumentParser(prog="python -m deploys", description=__doc__)


if __name__ == "__main__":
    parser().parse_args()
    print(Path(__file__).resolve().parent)
