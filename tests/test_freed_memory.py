"""Freed memory is kept: what is allocated again and again is faulted in once."""

import platform
import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from inrflow.cli import keep_freed_memory
told = keep_freed_memory()
def work():
    several = [np.ones(600_000 // 8) for _ in range(12)]
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(environment):
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    told, number = result.stdout.split()
    return told == "True", int(number)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_blocks_that_are_freed_serve_again():
    told, number = faults({})
    assert told and number < 7_200_000 // resource.getpagesize()  # of one round, of 20


def test_thresholds_that_the_environment_sets_are_left():
    told, _ = faults({"MALLOC_TRIM_THRESHOLD_": "131072"})
    assert not told
