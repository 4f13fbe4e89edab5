"""Keeps the memory that a training step frees for the next step, where the C library gives it back.

A step makes the same large arrays again and again. By glibc's defaults each of them is mapped from the
system and unmapped after its use, and every page of it is cleared by the system when it is first touched:
at notebook 1's shape 130,000 pages a step. Kept, they are cleared once.

TensorFlow's tensors come from its own allocator on top, the one that it has for GPUs (best fit with coalescing). With
glibc's alone the heap grew for some ten steps, to 0.15 GB more at notebook 2's shape, for tensors of which no more
than 0.11 GB were ever there at once. With oneDNN TensorFlow has an allocator of that kind by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Mapping

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""``mallopt``'s parameters, from glibc's malloc.h."""
_NEVER, _TOP_PAD_BYTES = -1, 64 << 20
_NOT_GLIBC = (AttributeError, OSError, TypeError)
"""What asking for its functions raises elsewhere: musl, macOS, Windows."""
_USERS_OWN = ("GLIBC_TUNABLES", "LD_PRELOAD")
_BEST_FIT, _BEST_FIT_LIMIT = "TF_CPU_ALLOCATOR_USE_BFC", "TF_CPU_BFC_MEM_LIMIT_IN_MB"
"""TensorFlow's variables, read when its first tensor is made."""
_NO_LIMIT = str(1 << 24)
"""Megabytes; by default it is 64 GiB, whatever the machine has. `without_allocator` knows by it whose they are."""


@functools.cache
def keep_freed_memory() -> bool:
    """From now on this process gives no memory back until it ends, and all threads take it from one heap.

    One heap, because the others are cut into parts of 64 MiB and cannot hold a large array; TensorFlow's tensors share
    parts of it that are theirs. It changes no computed value. To be called before TensorFlow is imported: threads of
    the import leave heaps behind, which later threads would take, and after its first tensor TensorFlow stays with
    the allocator that it has. A user's own settings stand: a variable ``MALLOC_...``, glibc's tunables for malloc, or
    another allocator that is loaded before it; and either of TensorFlow's variables, which are otherwise put into
    this process' environment (`without_allocator` takes them out for a child).

    Returns:
        Whether the C library was told: False where it is another, or the user has decided.

    Source: mallopt(3); ``GetCPUAllocator`` in TensorFlow's ``process_state.cc``.
    """
    if _is_decided():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except _NOT_GLIBC:
        return False
    wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _TOP_PAD_BYTES))
    if not all(mallopt(parameter, value) == 1 for parameter, value in wanted):
        return False
    if _BEST_FIT not in os.environ and _BEST_FIT_LIMIT not in os.environ:
        os.environ.update({_BEST_FIT: "1", _BEST_FIT_LIMIT: _NO_LIMIT})
    return True


def without_allocator(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what `keep_freed_memory` has put there: for a child that must decide for itself.

    Args:
        environment: Such as ``os.environ``.
    """
    ours = environment.get(_BEST_FIT_LIMIT) == _NO_LIMIT
    return {name: value for name, value in environment.items() if not (ours and name in (_BEST_FIT, _BEST_FIT_LIMIT))}


def give_back_freed_memory() -> None:
    """Gives back what the C library has free now; nothing where it is not glibc, or the user has decided.

    For after work that is done once, such as tracing and compiling: what that took would fill the process for good.
    Memory of TensorFlow's tensors stays for the next step's.

    Source: malloc_trim(3).
    """
    if _is_decided():
        return
    with contextlib.suppress(*_NOT_GLIBC):
        ctypes.CDLL(None).malloc_trim(0)


def _is_decided() -> bool:
    tunables, preloaded = (os.environ.get(name, "") for name in _USERS_OWN)
    return "glibc.malloc" in tunables or "malloc" in preloaded or any(name.startswith("MALLOC_") for name in os.environ)
