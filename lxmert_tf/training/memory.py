"""Memory of the process that trains."""

import ctypes
import os
import platform

M_ARENA_MAX = -8  # of glibc's <malloc.h>
TUNABLE = "glibc.malloc.arena_max"


def share_arena() -> bool:
    """Has glibc's `malloc` serve all threads from one arena, unless the environment says how many; before they start.

    By default each thread has an arena of its own, which keeps what was freed in it: in training a seventh of the
    memory. TensorFlow allocates whole tensors, so that threads do not wait for each other.

    Returns:
        Whether that is so now; False where the C library is another, or the environment has a setting.
    """
    is_set = "MALLOC_ARENA_MAX" in os.environ or TUNABLE in os.environ.get("GLIBC_TUNABLES", "")
    if is_set or platform.libc_ver()[0] != "glibc":
        return False
    return ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1) == 1
