"""What a training notebook trains: a file of its dataset, which its output keeps, too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from birdkit.errors import UserError
from birdkit.files import write_whole

NAME = "birdkit-training.json"  # by which the notebook finds the dataset
RUN = "birdkit-run"  # the run's folder in the notebook's output
VERSION = 1


@dataclass(frozen=True)
class Training:
    """A recipe with its changes, and how a session of it goes."""

    name: str
    recipe: str  # its file in the dataset
    overrides: tuple[str, ...]  # key=value
    resolved: dict[str, Any]  # the whole recipe that they make
    device: str  # that trains
    stop_after: str  # of each session, as --stop-after of train/run.py
    packages: tuple[str, ...]  # NAME==VERSION of what the kit needs; what the image lacks is installed
    tested: dict[str, str]  # versions of Python and packages on the machine that bundled
    commit: str  # the checkout's
    version: int = VERSION

    def save(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=1, sort_keys=True)
        write_whole(folder / NAME, f"{text}\n".encode())

    @classmethod
    def read(cls, folder: Path) -> Training:
        """Raises `UserError` where the folder has none that this kit reads."""
        path = folder / NAME
        try:
            values = json.loads(path.read_bytes())
            lists = {key: tuple(values[key]) for key in ("overrides", "packages")}
            training = cls(**values | lists)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: can't be read ({error!r}); bundle and push it again") from error
        if training.version != VERSION:
            raise UserError(f"{path}: version {training.version}, this kit reads {VERSION}")
        return training
