"""Which code is measured: is the installed package the checkout's, and is the checkout its commit?"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

PACKAGE = "minibert"


def differing_files(installed: Path, checkout: Path) -> list[str]:
    """Files of two package folders that are not the same byte for byte, or are in one of them only."""
    if installed == checkout:
        return []
    one, other = _digests(installed), _digests(checkout)
    return sorted(name for name in {**one, **other} if one.get(name) != other.get(name))


def has_changes(checkout: Path) -> bool:
    """Whether a checkout's package differs from its commit, new files included; False where there is no commit."""
    command = ["git", "-C", str(checkout), "status", "--porcelain", "--untracked-files=all", "--", PACKAGE]
    try:
        return bool(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip())
    except (OSError, subprocess.SubprocessError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.suffix not in (".pyc", ".pyo")
    }
