"""The cost model of archives: sums that can be checked by hand, and a simulation that agrees."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from birdkit.errors import UserError
from export import costs
from export.benchmark import archive, archive_page
from export.benchmark.archive import Place, Work, estimate, moves
from export.benchmark.simulation import START_S, simulate
from tests.conftest import ROOT
from tests.docs.test_pages import between_marks

WORK = Work(decode_s=0.1, engine_s=0.9)


def test_a_minute_that_takes_a_second_takes_a_sixtieth_of_the_hours() -> None:
    one = estimate(6000, 1, WORK, Place(core_usd=0.5, get_usd=0.0, put_usd=0.0))
    assert one.core_hours == pytest.approx(100)
    assert one.usd == pytest.approx(50)
    assert one.cores == 5  # 24 hours each
    assert one.read_tb == pytest.approx(6000 * 60 * 0.5 / 1e6)


def test_requests_are_paid_for() -> None:
    free = Place(core_usd=0.0, get_usd=1e-6, put_usd=1e-5, files_a_partition=10)
    assert estimate(1e6, 1, WORK, free).usd == pytest.approx(6e7 * 1e-6 + 5 * 6e6 * 1e-5)


def test_the_bottleneck_is_the_cores_until_another_resource_is_short() -> None:
    assert estimate(1e3, 1, WORK, Place()).bottleneck == "the engine's cores"
    slow = Place(store_gbit=0.001)
    assert estimate(1e6, 1, WORK, slow).bottleneck.startswith("network of the store (")


def test_the_next_bottleneck_moves_with_the_length_of_files_and_the_size_of_partitions() -> None:
    minutes = moves(WORK, Place())
    assert next(iter(minutes)) == "reads of the store"
    assert minutes["reads of the store"] == pytest.approx(5500, rel=0.01)
    hours = moves(WORK, Place(minutes_a_file=60.0, files_a_partition=1))
    assert next(iter(hours)) == "driver"
    larger = moves(WORK, Place(files_a_partition=64))
    assert larger["driver"] == pytest.approx(2 * minutes["driver"], rel=0.01)


def test_a_simulation_without_trouble_takes_what_its_work_takes() -> None:
    place = Place(driver_s=0.0)
    done = simulate(WORK, place, 10, 200, 0.0)
    least_s = 200 * 32 / 10
    assert least_s < done.seconds < 1.2 * least_s + START_S
    assert done.busy == pytest.approx(least_s / done.seconds)
    assert done.deaths == 0


def test_deaths_cost_time_and_no_partition() -> None:
    calm = simulate(WORK, Place(), 10, 200, 0.0)
    deadly = simulate(WORK, Place(), 10, 200, 20.0)
    assert deadly.deaths > 10
    assert deadly.seconds > calm.seconds + deadly.deaths * START_S / 10 / 2


def test_a_slow_driver_or_network_holds_up_all_workers() -> None:
    driver = simulate(WORK, Place(driver_s=1.0), 1000, 2000, 0.0)
    assert driver.seconds > 2000
    network = simulate(WORK, replace(Place(), store_gbit=0.1), 1000, 2000, 0.0)
    assert network.seconds > 2000 * 32 * 0.5 * 8 / 1000 / 0.1


def test_the_page_holds_what_the_command_says(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- costs -->\nstale\n<!-- /costs -->\n")
    assert costs.main(["--page", str(page)]) == 0
    assert between_marks(page, archive.MARK) == between_marks(ROOT / "docs" / "scale.md", archive.MARK)


def test_figures_that_are_none_are_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps({"rows": []}))
    with pytest.raises(UserError, match=r"no figures of export/bench\.py"):
        costs.main(["--bench", str(tmp_path / "bench.json")])


def test_every_table_of_the_page_is_whole() -> None:
    tables = [block for block in archive_page.markdown(WORK, Place()).split("\n\n") if block[0] == "|"]
    assert len(tables) == 3
    assert all(len({line.count("|") for line in table.splitlines()}) == 1 for table in tables)
