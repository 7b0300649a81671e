"""Row 11 of the battery: whatever is done to a library in whatever order, it is what a plain tree in memory is.

Talking, forking, naming, moving, deleting, forgetting, undoing, exporting and importing, pinning, evicting, restarts,
crashes, a cache that is purged or damaged, and a clock that jumps by years.
"""

import os

import pytest
from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from faults.library_machine import LibraryMachine
from faults.report import report

STEPS = 50
SHARES = 20


def run(runs, **more):
    LibraryMachine.figures.clear()
    run_state_machine_as_test(
        LibraryMachine, settings=settings(max_examples=runs, stateful_step_count=STEPS, database=None, **more)
    )
    figures = dict(LibraryMachine.figures)
    assert figures["runs"] >= runs
    assert figures["steps"] >= 20 * runs
    return figures


def test_a_library_is_a_plain_tree_whatever_is_done_to_it():
    report(11, **run(60, derandomize=True))


@pytest.mark.soak
@pytest.mark.parametrize("share", range(SHARES))
def test_two_thousand_times_fifty_steps(share):
    """Some runs end early, so there are more of them: the steps add up to 100,000."""
    runs = int(os.environ.get("FORKPOINT_RUNS", "2600")) // SHARES
    seed(share)(LibraryMachine)
    report(11, share=share, **run(runs, derandomize=False))
