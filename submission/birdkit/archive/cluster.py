"""Workers as actors of a Ray cluster, fed by Ray Data, which nothing else imports."""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birdkit.archive.partitions import Partition
from birdkit.archive.tables import Summary
from birdkit.archive.worker import Task, opened
from birdkit.errors import UserError, first_line

if TYPE_CHECKING:
    import numpy as np

LOCAL = "local"
# Blocks of partitions for each actor: what is given out again where one dies.
BLOCKS_AN_ACTOR = 64
STARTS = 3  # attempts
STORE_BYTES = 100 << 20  # Ray's shared memory on this machine; only names and counts go through it


def installed() -> bool:
    """Whether Ray can be imported."""
    try:
        import ray.data  # noqa: F401
    except ImportError:
        return False
    return True


def run(task: Task, partitions: Sequence[Partition], n_workers: int, address: str) -> Iterator[Summary]:
    """The summaries of all partitions, in the order in which they are done.

    Parameters
    ----------
    n_workers : actors, each on as many CPUs as the models' layout has threads; 0: as many as fit
    address : of a cluster, or "local" for one on this machine that ends with the call
    """
    import ray

    with _connected(address, n_workers * task.cores):
        n_workers = n_workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // task.cores)
        n_workers = min(n_workers, len(partitions))
        rows = [{"partition": pickle.dumps(partition)} for partition in partitions]
        n_blocks = min(len(rows), BLOCKS_AN_ACTOR * n_workers)
        # An actor that dies is started again, and so is its block: what is done in it is only read.
        summaries = ray.data.from_items(rows, override_num_blocks=n_blocks).map_batches(
            Actor,
            fn_constructor_args=(task,),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=n_workers, max_tasks_in_flight_per_actor=1),
            num_cpus=task.cores,
        )
        try:
            for row in summaries.iter_rows():
                yield pickle.loads(row["summary"])
        except ray.exceptions.RayError as error:
            raise _of_the_user(error) or error from error


class Actor:
    """A worker behind the call that Ray Data makes: rows in, and small rows out."""

    def __init__(self, task: Task) -> None:
        self._worker = opened(task)

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[bytes]]:
        if isinstance(self._worker, Exception):
            raise self._worker
        summaries = [self._worker(pickle.loads(content)) for content in batch["partition"]]
        return {"summary": [pickle.dumps(summary) for summary in summaries]}


@contextmanager
def _connected(address: str, n_cpus: int) -> Iterator[None]:
    """Connected to a cluster. One of our own leaves no file, and asks for no news of the network."""
    import ray

    package = Path(__file__).resolve().parents[1]
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # a dozen processes of many threads each
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    folder = tempfile.mkdtemp(prefix="ray-")
    try:
        if address == LOCAL:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else it is kept at home
            here = {"num_cpus": n_cpus or None, "include_dashboard": False, "_temp_dir": folder}
            paths = {"env_vars": {"PYTHONPATH": str(package.parent)}}
            _start(LOCAL, object_store_memory=STORE_BYTES, runtime_env=paths, **here, **quiet)
        else:
            _start(address, runtime_env={"py_modules": [str(package)]}, **quiet)
        yield
    finally:
        ray.shutdown()
        _end(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _start(address: str, **options: Any) -> None:
    """Connect. Ray waits 30 s for its own parts, which a busy machine may not have started by then."""
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            ray.init(address, **options)
            return
        except Exception as error:  # Ray raises just that where a part of it is late
            ray.shutdown()
            if attempt == STARTS or isinstance(error, ConnectionError | ValueError):
                raise UserError(
                    f"--ray {address}: {first_line(error)}; start a cluster with ray start, give "
                    "local, or leave --ray out"
                ) from error


def _end(folder: str) -> None:
    """End what Ray leaves running of a cluster whose start failed, known by the folder of ours."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if folder.encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


def _of_the_user(error: BaseException | None) -> UserError | None:
    """The error that the user can mend among the causes of Ray's."""
    while error is not None:
        if isinstance(error, UserError):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None
