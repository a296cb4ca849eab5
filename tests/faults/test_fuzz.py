"""A few cases of the fuzzing of every reader; `python tests/faults/fuzz.py MINUTES` runs as many as time allows."""

import os
import time

import numpy as np
from fuzz import fuzz, mutated, run_forked


def test_damaged_files_of_every_kind_are_read_or_refused_in_one_line(tiny_run):
    count, failures = fuzz(tiny_run.run, tiny_run.test, minutes=3.0, seed=0, most=12)
    assert len(count) == 12 and not failures, failures


def test_the_harness_tells_answers_and_refusals_from_tracebacks_hangs_and_deaths():
    assert not run_forked(lambda: 0).failed and not run_forked(lambda: 2).failed
    assert run_forked(lambda: 1 // 0).failed and "ZeroDivisionError" in run_forked(lambda: 1 // 0).text
    assert run_forked(lambda: time.sleep(60), waited=0.1).failed
    assert run_forked(lambda: os.kill(os.getpid(), 9)).failed
    assert run_forked(lambda: len(bytearray(4 << 30)) and 0).failed


def test_damage_depends_on_the_seed_alone():
    data = bytes(range(256)) * 8
    damaged = [mutated(data, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert damaged[0] == damaged[1] != damaged[2]
