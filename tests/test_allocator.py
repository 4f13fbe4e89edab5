"""Freed memory is kept for what is made next: the pages of a large array are cleared once, and tensors take turns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minibert.allocator import without_allocator

ROUNDS, MEGABYTES = 8, 48
PAGES = MEGABYTES * (1 << 20) // 4096

# Memory as large as a step's, made and freed by a thread, as TensorFlow does.
_CHILD = f"""
import resource, sys, threading
from minibert.allocator import keep_freed_memory
done = keep_freed_memory() if sys.argv[1] == "kept" else None
size = {MEGABYTES} << 20

def rounds():
    for _ in range({ROUNDS}):
        b"x" * size  # a size that the compiler does not know, or it would be one constant

thread = threading.Thread(target=rounds)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread.start()
thread.join()
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

needs_glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.confstr("CS_GNU_LIBC_VERSION") is None, reason="glibc's allocator"
)


def child(mode: str, **variables: str) -> tuple[str, int]:
    """What `keep_freed_memory` said in a fresh process, and how many pages it touched for the first time."""
    usual = {name: value for name, value in os.environ.items() if "MALLOC" not in name and name != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", _CHILD, mode], env=usual | variables, check=True, capture_output=True)
    said, faults = done.stdout.split()
    return said.decode(), int(faults)


@needs_glibc
def test_the_pages_of_a_freed_array_are_not_cleared_again() -> None:
    said, kept = child("kept")
    assert said == "True"
    assert kept < 2 * PAGES
    assert child("given back")[1] > (ROUNDS - 1) * PAGES  # what it is for: else this test would show nothing


@needs_glibc
@pytest.mark.parametrize(
    "variables",
    [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1048576"}],
)
def test_what_a_user_has_set_stands(variables: dict[str, str]) -> None:
    assert child("kept", **variables)[0] == "False"


@needs_glibc
def test_another_allocator_is_left_alone() -> None:
    assert child("kept", LD_PRELOAD="libjemalloc-that-is-not-there.so")[0] == "False"


_TENSORS = """
from minibert.allocator import keep_freed_memory
keep_freed_memory()
from minibert.quiet import quiet_tensorflow
quiet_tensorflow()
import tensorflow as tf
tensor = tf.zeros([1 << 20])
try:
    print(tf.config.experimental.get_memory_info("CPU:0")["current"])
except ValueError:
    print(0)  # TensorFlow's usual allocator on a CPU does not count
"""

_TRIMMED = """
from minibert.allocator import give_back_freed_memory, keep_freed_memory
from pathlib import Path
keep_freed_memory()
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1])
arrays = [bytearray(100_000) for _ in range(640)]
last = bytearray(100_000)  # so that the end of the heap is in use
full = resident()
del arrays
kept = resident()
give_back_freed_memory()
print(full - kept, kept - resident())
"""


def said_by(program: str, **variables: str) -> list[int]:
    usual = {name: value for name, value in os.environ.items() if "MALLOC" not in name and "BFC" not in name}
    done = subprocess.run([sys.executable, "-c", program], env=usual | variables, check=True, capture_output=True)
    return [int(word) for word in done.stdout.split()]


@needs_glibc
@pytest.mark.long
def test_tensors_come_from_tensorflows_best_fit() -> None:
    (current,) = said_by(_TENSORS)
    assert current >= 4 << 20


@needs_glibc
@pytest.mark.long
@pytest.mark.parametrize("variables", [{"TF_CPU_ALLOCATOR_USE_BFC": "0"}, {"MALLOC_ARENA_MAX": "2"}])
def test_a_user_who_has_decided_has_tensorflows_own(variables: dict[str, str]) -> None:
    without_onednn = {"TF_ENABLE_ONEDNN_OPTS": "0"}  # with it TensorFlow has an allocator of its own that counts
    assert said_by(_TENSORS, **without_onednn, **variables) == [0]


@needs_glibc
def test_freed_memory_is_given_back_when_asked() -> None:
    by_itself, asked = said_by(_TRIMMED)
    pages = 640 * 100_000 // 4096
    assert by_itself < pages // 10
    assert asked > pages // 2


@needs_glibc
def test_a_user_who_has_decided_is_not_trimmed() -> None:
    assert said_by(_TRIMMED, MALLOC_TRIM_THRESHOLD_="1000000000", MALLOC_TOP_PAD_="0")[1] == 0


def test_a_child_can_decide_for_itself() -> None:
    ours = {"TF_CPU_ALLOCATOR_USE_BFC": "1", "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(1 << 24)}
    users = {"TF_CPU_ALLOCATOR_USE_BFC": "1", "TF_CPU_BFC_MEM_LIMIT_IN_MB": "4000"}
    assert without_allocator({"PATH": "p", **ours}) == {"PATH": "p"}
    for environment in ({"PATH": "p", **users}, {"TF_CPU_ALLOCATOR_USE_BFC": "1"}, {}):
        assert without_allocator(environment) == environment


@needs_glibc
def test_variables_are_put_into_the_environment_only_where_the_user_has_none() -> None:
    program = "import os; from minibert.allocator import keep_freed_memory, without_allocator; keep_freed_memory();"
    program += "print(sum('BFC' in name for name in os.environ), sum('BFC' in name for name in {}))"
    assert said_by(program.format("without_allocator(os.environ)")) == [2, 0]
    for name in ("TF_CPU_ALLOCATOR_USE_BFC", "TF_CPU_BFC_MEM_LIMIT_IN_MB"):
        assert said_by(program.format("os.environ"), **{name: "1"}) == [1, 1]


_TOO_LARGE = """
import sys, time
from minibert.allocator import keep_freed_memory
keep_freed_memory()
from minibert.quiet import quiet_tensorflow
quiet_tensorflow()
import resource
import tensorflow as tf
from minibert.errors import OutOfMemoryError
from minibert.training.memory import within_memory
tf.zeros([1])
started = time.monotonic()
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 30), resource.RLIM_INFINITY))
try:
    with within_memory("training", 32):
        tf.zeros([1 << 30])
except OutOfMemoryError:
    print(1, int(time.monotonic() - started))
"""


@needs_glibc
@pytest.mark.slow
def test_a_tensor_that_does_not_fit_is_an_error_of_its_own() -> None:
    said, seconds = said_by(_TOO_LARGE)
    assert said == 1
    assert seconds < 60  # TensorFlow waits some ten for memory that comes free


@needs_glibc
@pytest.mark.slow
def test_no_bit_depends_on_the_allocator(tmp_path: Path) -> None:
    """Two runs in processes of their own, of which one has TensorFlow's usual allocator."""
    small = ["--set", "corpus.train_examples=96", "corpus.test_examples=32", "pretrain.epochs=1",
             "finetune.frozen_epochs=1", "finetune.unfrozen_epochs=1"]  # fmt: skip
    usual = without_allocator(os.environ)
    for name, variables in (("best", {}), ("usual", {"TF_CPU_ALLOCATOR_USE_BFC": "0", "MALLOC_PERTURB_": "0"})):
        command = [sys.executable, "-m", "minibert", "run", "tiny", "--quiet", "--out", str(tmp_path / name), *small]
        subprocess.run(command, env=usual | variables, check=True, cwd=tmp_path)
    command = [sys.executable, "-m", "minibert", "verify", "best", "--against", "usual"]
    assert subprocess.run(command, check=True, cwd=tmp_path, capture_output=True).stdout.startswith(b"exact")
