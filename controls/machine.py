"""How many processor cores there are, how many of them a world is given, and memory that nobody uses any more.

Does not know what runs on them.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

FEWEST, MOST = 2, 4  # more than four threads gain little in networks as small as a processor can play


def usable_cores() -> int:
    """Cores, as the system counts them, that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_of_use() -> int:
    """Threads for a world on this machine: half the cores, which are often two to one that computes, from 2 to 4."""
    return min(max(usable_cores() // 2, FEWEST), MOST)


def give_back_memory() -> None:
    """Return to the system what was freed: glibc keeps it for later, which after opening a world is never needed."""
    with suppress(AttributeError, OSError, TypeError):  # another system or another library
        ctypes.CDLL(None).malloc_trim(0)
