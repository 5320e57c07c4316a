"""Workers as processes of this machine, for archives that need no cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from birdkit.archive.partitions import Partition
from birdkit.archive.tables import Summary
from birdkit.archive.worker import Task, Worker, opened
from birdkit.errors import UserError
from birdkit.log import LOG

AHEAD = 2  # partitions given to each worker beforehand
# So many deaths with no partition done between them are the fault of no recording.
MOST_DEATHS_IN_A_ROW = 20

_worker: Worker | Exception | None = None  # of this process, or why there is none


def run(task: Task, partitions: Sequence[Partition], n_workers: int) -> Iterator[Summary]:
    """The summaries of all partitions, in the order in which they are done.

    Where a worker dies all are started anew, and only what was not done is given out again.
    """
    left = {partition.key: partition for partition in partitions}
    deaths = 0
    while left:
        try:
            for summary in _run(task, list(left.values()), n_workers):
                del left[summary.key]
                deaths = 0
                yield summary
        except BrokenProcessPool:
            deaths += 1
            if deaths > MOST_DEATHS_IN_A_ROW:
                raise UserError(
                    f"workers died {deaths} times in a row and did nothing; free some memory, or give "
                    "fewer --workers"
                ) from None
            LOG.warning(f"warning: a worker died; {len(left)} partitions are left, and go on")


def _run(task: Task, partitions: Sequence[Partition], n_workers: int) -> Iterator[Summary]:
    """As `run`, until a worker dies."""
    # Not forked, because engines and soundfile may hold threads.
    context = multiprocessing.get_context("spawn")
    n_workers = min(n_workers, len(partitions))
    with ProcessPoolExecutor(n_workers, context, initializer=_open, initargs=(task,)) as pool:
        try:
            waiting = iter(partitions)
            first = islice(waiting, AHEAD * n_workers)
            running: set[Future[Summary]] = {pool.submit(_work, partition) for partition in first}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(_work, p) for p in islice(waiting, len(done))}
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _open(task: Task) -> None:
    global _worker
    _worker = opened(task)


def _work(partition: Partition) -> Summary:
    assert _worker is not None
    if isinstance(_worker, Exception):
        raise _worker
    return _worker(partition)
