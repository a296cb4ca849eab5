"""What may not end is tried in another process first."""

import os
import time

from inrflow.runtime.probe import survives


def test_what_ends_or_fails_in_an_orderly_way_survives():
    assert survives(lambda: None) and survives(lambda: 1 / 0)


def test_what_does_not_end_or_ends_the_process_does_not_survive_and_leaves_no_process():
    began = time.monotonic()
    assert not survives(lambda: time.sleep(60), seconds=0.2) and time.monotonic() - began < 5
    assert not survives(lambda: os.kill(os.getpid(), 9))
