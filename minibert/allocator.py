"""Keeps the memory that a training step frees for the next step, where the C library gives it back.

A step makes the same large arrays again and again. By glibc's defaults each of them is mapped from the
system and unmapped after its use, and every page of it is cleared by the system when it is first touched:
at notebook 1's shape 130,000 pages a step. Kept, they are cleared once.
"""

from __future__ import annotations

import ctypes
import functools
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""``mallopt``'s parameters, from glibc's malloc.h."""
_NEVER, _TOP_PAD_BYTES = -1, 64 << 20
_USERS_OWN = ("GLIBC_TUNABLES", "LD_PRELOAD")


@functools.cache
def keep_freed_memory() -> bool:
    """From now on this process gives no memory back until it ends, and all threads take it from one heap.

    One heap, because the others are cut into parts of 64 MiB and cannot hold a large array. It changes no
    computed value. To be called before TensorFlow is imported: threads of the import leave heaps behind, which later
    threads would take. A user's own settings stand: a variable ``MALLOC_...``, glibc's tunables for malloc, or
    another allocator that is loaded before it.

    Returns:
        Whether it was done: False where the C library is another, or the user has decided.

    Source: mallopt(3).
    """
    if _is_decided():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc: musl, macOS, Windows
        return False
    wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(parameter, value) == 1 for parameter, value in wanted)


def _is_decided() -> bool:
    tunables, preloaded = (os.environ.get(name, "") for name in _USERS_OWN)
    return "glibc.malloc" in tunables or "malloc" in preloaded or any(name.startswith("MALLOC_") for name in os.environ)
