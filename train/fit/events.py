"""A model's curves as files that TensorBoard reads, on this machine alone.

tensorboardX (MIT) writes them: it needs no package that the kit does not, where torch's own writer
needs TensorBoard with its web server.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from train.fit.loop import Progress

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FOLDER = "tensorboard"


@contextmanager
def events(
    model_folder: Path, steps_an_epoch: int, *, wanted: bool
) -> Iterator[Callable[[Progress], None]]:
    """Where wanted, what is to be called with all that is done by then; otherwise a call of nothing.

    The loss of each step and the macro-AUCs of each epoch go to the model's `tensorboard/`, which is
    written anew: a training that was interrupted is one curve.
    """
    if not wanted:
        yield lambda progress: None
        return
    from tensorboardX import SummaryWriter  # here: Kaggle's image may lack it

    shutil.rmtree(model_folder / FOLDER, ignore_errors=True)
    with closing(SummaryWriter(str(model_folder / FOLDER))) as writer:
        yield _Events(writer, steps_an_epoch)


class _Events:
    def __init__(self, writer: SummaryWriter, steps_an_epoch: int) -> None:
        self._writer, self._steps_an_epoch = writer, steps_an_epoch
        self._step, self._epoch = 0, 0

    def __call__(self, progress: Progress) -> None:
        """Write what there is more of than at the last call."""
        for step in range(self._step, progress.step):
            self._writer.add_scalar("loss", progress.losses[step], step + 1)
        for epoch in range(self._epoch, len(progress.epochs)):
            for name, by_output in progress.epochs[epoch]["metrics"].items():
                for output, auc in by_output.items():
                    self._writer.add_scalar(f"{name}/{output}", auc, self._steps_an_epoch * (epoch + 1))
        self._step, self._epoch = progress.step, len(progress.epochs)
        self._writer.flush()
