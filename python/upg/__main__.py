"""The command ``upg``: the program that the package brings along takes the place of this process."""

from __future__ import annotations

import os
import pathlib
import sys


def main() -> None:
    """What the console script calls."""
    program = pathlib.Path(__file__).with_name("bin") / "upg"
    if not program.exists():
        sys.exit(f"upg: {program} is not there: this installation of the package is not complete")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, ["upg", *sys.argv[1:]])


if __name__ == "__main__":
    main()
