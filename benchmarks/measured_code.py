"""Which code is measured: is the installed package the checkout's, and is the checkout its commit?"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from minibert.environment import package_version

PACKAGE = "minibert"
PEER_PACKAGES = ("keras-hub", "tensorflow-text", "transformers", "tokenizers")
"""What the peers are of; a result says which versions."""


def differing_files(installed: Path, checkout: Path) -> list[str]:
    """Files of two package folders that are not the same byte for byte, or are in one of them only."""
    if installed == checkout:
        return []
    one, other = _digests(installed), _digests(checkout)
    return sorted(name for name in {**one, **other} if one.get(name) != other.get(name))


def peer_versions() -> dict[str, str]:
    """The versions of the peers' packages that are installed."""
    found = {name: package_version(name) for name in PEER_PACKAGES}
    return {name: version for name, version in found.items() if version}


def commit_of(checkout: Path) -> str | None:
    """The commit that a checkout stands at; None where there is none."""
    return _git(checkout, "rev-parse", "--verify", "--quiet", "HEAD") or None


def has_changes(checkout: Path, *paths: str) -> bool:
    """Whether a checkout's package, or what is named, differs from its commit, new files included.

    False where there is no commit.

    Args:
        checkout: Its root.
        paths: What is looked at in place of the package, as git's pathspecs.
    """
    return bool(_git(checkout, "status", "--porcelain", "--untracked-files=all", "--", *(paths or (PACKAGE,))))


def _git(checkout: Path, *words: str) -> str:
    """What git says; nothing where it fails or is not there."""
    command = ["git", "-C", str(checkout), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.suffix not in (".pyc", ".pyo")
    }
