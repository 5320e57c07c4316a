"""A discrete simulation of many workers on an archive: what can't be run here, event by event."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from export.benchmark.archive import Place, Work

SPREAD = 0.15  # of the time of a partition, as a share of it
WRITE_S = 0.2  # of a partition's tables
START_S = 30.0  # of a worker: its process and its engine


@dataclass(frozen=True)
class Simulated:
    """What a simulated call came to."""

    seconds: float
    busy: float  # share of the cores' time that went into partitions which counted
    deaths: int
    waited_s: float  # for the driver, of all workers


def simulate(
    work: Work, place: Place, n_workers: int, n_partitions: int, deaths_an_hour: float, seed: int = 0
) -> Simulated:
    """Workers of one core take partitions from one driver, read while they score, and may die.

    A worker that dies loses the partition that it is at, which goes to the next one that is free.

    Parameters
    ----------
    deaths_an_hour : of one worker, such as machines that are taken away
    """
    # Six arguments: the last has a default.
    rng = np.random.default_rng(seed)
    needed_s = place.minutes_a_partition * work.core_s
    node_share = place.node_gbit / place.node_cores
    gbit = min(node_share, place.store_gbit / n_workers)
    read_s = place.minutes_a_partition * place.mb_a_minute * 8 / 1000 / gbit
    free = [(START_S * rng.uniform(0.5, 1.0), worker) for worker in range(n_workers)]
    heapq.heapify(free)
    left, driver_free_s, end_s, deaths, waited_s = n_partitions, 0.0, 0.0, 0, 0.0
    while left:
        now_s, worker = heapq.heappop(free)
        given_s = max(now_s, driver_free_s) + place.driver_s
        waited_s += given_s - now_s
        driver_free_s = given_s
        takes_s = max(read_s, needed_s * rng.lognormal(0.0, SPREAD)) + WRITE_S
        lives_s = rng.exponential(3600 / deaths_an_hour) if deaths_an_hour else np.inf
        if lives_s < takes_s:
            deaths += 1
            heapq.heappush(free, (given_s + lives_s + START_S, worker))
            continue
        left -= 1
        end_s = max(end_s, given_s + takes_s)
        heapq.heappush(free, (given_s + takes_s, worker))
    return Simulated(end_s, n_partitions * needed_s / (n_workers * end_s), deaths, waited_s)
