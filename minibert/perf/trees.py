"""The two sides of a comparison, each as a fresh tree of its own.

The base is a revision, taken out of git's store; the head is the working tree as it is now, with
changes that are not committed. Both are copied to a temporary folder first, so that an editor that
saves a file while the gate runs changes nothing, and nothing of the repository is touched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minibert.allocator import without_allocator
from minibert.errors import SettingsError

PACKAGE = "minibert"
_GIT_SECONDS, _IMPORT_SECONDS = 120, 300
_LONGEST_SAID = 160
"""Characters of what another program said, in an error."""
_DESCRIBE = """
import json, platform
from importlib import metadata
import minibert
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
try:
    from minibert.perf.workloads import DEFAULT
except ImportError:
    DEFAULT = ()
names = ("tensorflow", "keras", "numpy")
versions = {"python": platform.python_version(), **{name: version(name) for name in names}}
print(json.dumps({"versions": versions, "benchmarks": list(DEFAULT)}))
"""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison.

    Attributes:
        kind: ``revision``, ``worktree``, ``python`` or ``result``.
        name: As a person calls it.
        commit: The full hash that it is, or that it was changed from.
        commit_time: When it was committed, as ISO 8601; likewise ``author_time``.
        is_dirty: Whether there are changes that are not committed.
        python: Its interpreter.
        tree: The folder whose ``minibert`` is imported.
        versions: Of Python, TensorFlow, Keras and NumPy.
        benchmarks: What its own gate times by default; empty if it has none.
    """

    kind: str
    name: str
    commit: str | None = None
    commit_time: str | None = None
    author_time: str | None = None
    is_dirty: bool = False
    python: Path = Path(sys.executable)
    tree: Path = Path()
    versions: dict[str, str | None] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without paths: who reads it has another disk."""
        names = ("kind", "name", "commit", "commit_time", "author_time", "is_dirty", "versions")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        at = f" at {self.commit[:10]}" if self.commit else ""
        return f"{self.name}{at}{', with changes that are not committed' if self.is_dirty else ''}"


def checkout_root(folder: Path) -> Path:
    """The root of the checkout of minibert that a folder is in.

    Raises:
        SettingsError: There is none.
    """
    done = _run_git(folder, "rev-parse", "--show-toplevel")
    if done.returncode != 0:  # no repository, or one that git refuses to read: it says which
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["git failed"])[0]
        raise SettingsError(f"perf: a git checkout of minibert is required, but in {folder} git says: {said}")
    root = Path(os.fsdecode(done.stdout).strip())
    if not (root / PACKAGE / "__init__.py").is_file():
        raise SettingsError(f"perf: a git checkout of minibert is required, but {root} is one of something else")
    return root


def revision_side(root: Path, revision: str, target: Path, *, python: Path | None = None) -> Side:
    """Takes a revision's tree out of git into a folder.

    Raises:
        SettingsError: There is no such revision, or it has no package of ours.
    """
    commit = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if not commit:
        raise SettingsError(f"--base: a revision of {root} is required, but {revision!r} is none")
    name = commit.decode().strip()
    archive = _git(root, "archive", "--format=zip", name, "--", PACKAGE)
    if archive is None:
        raise SettingsError(f"--base: a revision with the package {PACKAGE} is required, but {revision!r} has none")
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        opened.extractall(target)
    kind = "revision" if python is None else "python"
    commit_time, author_time = _times_of(root, name)
    return Side(
        kind=kind,
        name=revision,
        commit=name,
        commit_time=commit_time,
        author_time=author_time,
        python=python or Path(sys.executable),
        tree=target,
    )


def working_side(root: Path, target: Path, *, python: Path | None = None) -> Side:
    """Copies the package as it stands in the working tree, but what git ignores, into a folder."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", PACKAGE) or b""
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (root / name).is_file():  # one that was deleted is still in git's list
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    changed = bool(_git(root, "status", "--porcelain", "--", PACKAGE))
    commit_time, author_time = _times_of(root, "HEAD")
    kind, name = ("worktree", "working tree") if python is None else ("python", "working tree in another environment")
    return Side(
        kind=kind,
        name=name,
        commit=commit.decode().strip() if commit else None,
        commit_time=commit_time,
        author_time=author_time,
        is_dirty=changed,
        python=python or Path(sys.executable),
        tree=target,
    )


def _times_of(root: Path, revision: str) -> tuple[str | None, str | None]:
    """When a commit was made, and when its change was written; None where there is no commit."""
    said = _git(root, "show", "--no-patch", "--no-show-signature", "--format=%cI %aI", revision, "--")
    times = (said or b"").decode().split()
    return (times[0], times[1]) if len(times) == 2 else (None, None)


def described(side: Side) -> Side:
    """The side with its versions and benchmarks, once its package has been imported for the first time.

    Raises:
        SettingsError: Its Python does not start, or cannot import the package; the message says why.
    """
    environment = {**without_allocator(os.environ), "PYTHONPATH": str(side.tree)}
    words = [str(side.python), "-c", _DESCRIBE]
    try:
        done = subprocess.run(
            words, cwd=side.tree, env=environment, capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError(f"{side.name}: {side.python} is required to run Python, but {error}") from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        short = textwrap.shorten(said, _LONGEST_SAID, placeholder=" ...")
        raise SettingsError(f"{side.name}: a package that {side.python} can import is required, but it said: {short}")
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
        return dataclasses.replace(side, versions=dict(found["versions"]), benchmarks=tuple(found["benchmarks"]))
    except (ValueError, IndexError, KeyError, TypeError):
        came = done.stdout[:80]
        raise SettingsError(f"{side.name}: {side.python} is required to run Python, but it said {came!r}") from None


def same_code(one: Side, other: Side) -> bool:
    """Whether two trees hold the same package, byte for byte."""
    return _digests(one.tree) == _digests(other.tree)


def _digests(tree: Path) -> dict[str, str]:
    files = (path for path in (tree / PACKAGE).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def environment_differences(base: Side, head: Side) -> list[str]:
    """Versions that differ, in words: ``tensorflow 2.20.0 (base) and 2.21.0 (head)``."""
    names = [name for name in {**base.versions, **head.versions} if base.versions.get(name) != head.versions.get(name)]
    return [f"{name} {_version(base, name)} (base) and {_version(head, name)} (head)" for name in names]


def _version(side: Side, name: str) -> str:
    return side.versions.get(name) or "not installed"


def file_of_commit(root: Path, commit: str, name: str) -> bytes | None:
    """A file's content at a commit, by its path from the root; None if there is none."""
    return _git(root, "show", f"{commit}:{name}")


def _git(folder: Path, *words: str) -> bytes | None:
    """What a git command printed; None if it failed."""
    done = _run_git(folder, *words)
    return done.stdout if done.returncode == 0 else None


def _run_git(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a git command.

    Raises:
        SettingsError: There is no git, or it does not end.
    """
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, timeout=_GIT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise SettingsError("perf: git is required, but it is not installed") from None
    except subprocess.TimeoutExpired:
        raise SettingsError(f"perf: git is required, but `git {words[0]}` did not end in {_GIT_SECONDS} s") from None
