"""What a stage costs, and which stages grow faster than their input."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from birdkit.errors import UserError
from train.benchmark.cost import Cost, measured, measured_command
from train.benchmark.growth import Measured, faults, summary, table

MIB = 1 << 20


def sizes(small: Cost, large: Cost) -> tuple[Measured, Measured]:
    return Measured(80, 20, 100.0, {"stage": small}), Measured(800, 200, 1000.0, {"stage": large})


@pytest.mark.parametrize(
    ("large", "why"),
    [
        (Cost(100.0, 100.0, 500.0, 10.0), None),  # ten times as long for ten times the files
        (Cost(1.0, 200.0, 500.0, 10.0), "grows faster than its input"),
        (Cost(300.0, 100.0, 500.0, 10.0), None),  # a neighbour's fault
        (Cost(100.0, 100.0, 5000.0, 251.0), "holds too much of the audio"),
        (Cost(100.0, 100.0, 5000.0, 249.0), None),
    ],
)
def test_a_stage_is_named_that_grows_or_holds_too_much(large: Cost, why: str | None) -> None:
    wrong = faults(*sizes(Cost(10.0, 10.0, 500.0, 10.0), large))
    assert wrong == ({} if why is None else {"stage": why})


def test_a_stage_may_grow_as_the_files_do_that_it_takes() -> None:
    small, large = sizes(Cost(10.0, 10.0, 500.0, 10.0), Cost(200.0, 200.0, 500.0, 10.0))
    small, large = replace(small, own_inputs={"stage": 10}), replace(large, own_inputs={"stage": 160})
    assert faults(small, large) == {}  # 20 times for 16
    assert "| 20.0 | 16.0 |  |" in table(small, large)
    assert faults(small, replace(large, own_inputs={"stage": 100})) != {}


def test_a_short_stage_is_too_uncertain_to_be_named() -> None:
    assert faults(*sizes(Cost(0.1, 0.01, 1.0, 0.0), Cost(4.0, 4.0, 1.0, 0.0))) == {}


def test_the_table_has_a_line_for_each_stage_and_says_what_is_wrong() -> None:
    small, large = sizes(Cost(10.0, 10.0, 500.0, 10.0), Cost(1.0, 200.0, 500.0, 10.0))
    (line,) = [line for line in table(small, large).splitlines() if line.startswith("| stage | 10")]
    costs = "10.0 (10.0) | 500 | 1.0 (200.0) | 500"
    assert line == f"| stage | {costs} | 20.0 | 10.0 | grows faster than its input |"
    assert summary(faults(small, large), ["stage"]) == "stage grows faster than its input"
    assert summary({}, ["stage"]).startswith("none of 1 stages")


def test_a_call_costs_its_time_and_its_memory() -> None:
    def work() -> None:
        gc.collect()
        held = np.ones(64 * MIB, dtype=np.uint8)
        while not held.sum():
            pass

    left: list[object] = [np.ones(128 * MIB, dtype=np.uint8)]
    left.append(left)  # a cycle, which is freed whenever the collector comes by
    del left
    cost = measured(work)
    assert 60 < cost.grown_mib < 400
    assert cost.peak_mib > cost.grown_mib
    assert 0 < cost.cpu_s < 10
    assert measured(lambda: None).grown_mib < 30  # the last peak is forgotten


def test_a_command_costs_its_own_memory_and_its_fault_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("held = bytearray(200 << 20)\n")
    assert 200 < measured_command([script], tmp_path).peak_mib < 400
    script.write_text("import sys; print('error: no such thing'); sys.exit(2)\n")
    with pytest.raises(UserError, match="failed with error: no such thing"):
        measured_command([script], tmp_path)
