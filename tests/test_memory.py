"""Whether freed memory is kept, told by the page faults of using it again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

USE_AGAIN = """
import resource, sys, threading
import torch
from disco_fast.engine.memory import keep_memory

if sys.argv[1] == "keep":
    assert keep_memory()

def faults(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(megabytes * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def run():
    faults(100)
    print(faults(80))  # smaller, for aligned blocks need some room around them

run()
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc is meant")
def test_memory_is_kept_in_every_thread():
    def faults(how: str) -> list[int]:
        command = [sys.executable, "-c", USE_AGAIN, how]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [int(line) for line in printed.split()]

    pages = 80 * 2**20 // 4096
    assert max(faults("keep")) < pages / 20
    assert min(faults("not")) >= pages
