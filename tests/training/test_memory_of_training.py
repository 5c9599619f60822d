"""Memory of the process that trains."""

import os
import subprocess
import sys

import pytest
from support.golden import ROOT

ARENAS = """
import ctypes, sys, threading
from lxmert_tf.training.memory import share_arena

print(share_arena())
hold = threading.Barrier(5)
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
threads = [threading.Thread(target=lambda: (bytearray(2**16), hold.wait())) for _ in range(4)]
for thread in threads:
    thread.start()
hold.wait()
for thread in threads:
    thread.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="is for glibc")
@pytest.mark.parametrize(
    ("environment", "shared"),
    [
        ({}, True),
        ({"MALLOC_ARENA_MAX": "4"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, True),
    ],
)
def test_threads_share_an_arena_unless_the_environment_says_otherwise(tmp_path, environment, shared):
    known = {name: value for name, value in os.environ.items() if name not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")}
    command = [sys.executable, "-c", ARENAS, str(tmp_path / "info.xml")]
    done = subprocess.run(command, env=known | environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{shared}\n"
    assert ((tmp_path / "info.xml").read_text().count("<heap nr=") == 1) == shared
