"""The command ``minibert``, also as ``python -m minibert``: an early Ctrl-C is no traceback, either."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs one command; see `minibert.cli.main`."""
    try:
        from minibert.cli import main as run_command

        return run_command()
    except KeyboardInterrupt:
        print("minibert: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
