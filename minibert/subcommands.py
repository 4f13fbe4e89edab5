"""One command of the command line's grammar, with the help that every command has."""

from __future__ import annotations

import argparse


def add_command(
    subparsers: argparse._SubParsersAction, name: str, text: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """Adds a command whose options are written out.

    Args:
        subparsers: What it is added to.
        name: Its word.
        text: What it does, beginning with a small letter and without a full stop: its line in the list of commands.
        epilog: Stands below its options; None: nothing.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog, allow_abbrev=False
    )
    return parser
