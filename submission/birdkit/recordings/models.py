"""The models of a batch: what they are known by, and how they are opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from birdkit.engines import ladder
from birdkit.engines.layout import Layout, usable_cores
from birdkit.files import sha256
from birdkit.recordings.journal import Model
from birdkit.scoring import calibration, ensemble
from birdkit.scoring.engine_failover import Failover
from birdkit.scoring.ensemble import SPEC_NAME, Spec

MODEL_SUFFIXES = (".onnx", ".xml", ".bin")
KEY_DIGITS = 16


@dataclass(frozen=True)
class ModelFolder:
    """A model folder and how it is to be run. Raises `UserError` where it holds no models.

    Parameters
    ----------
    engine, precision : as options of the submission
    threads : 0: the cores usable here
    layout : "auto", or one to take
    """

    folder: Path
    engine: str
    precision: str
    threads: int
    layout: str

    def __post_init__(self) -> None:
        ladder.refuse_unknown(self.engine)
        ladder.check_files(self.folder, Spec.load(self.folder).stems)
        if self.layout != "auto":
            Layout.parse(self.layout)

    @property
    def key(self) -> str:
        """Digits of the SHA-256 over all that changes scores: the models, their spec and how they run."""
        stems = Spec.load(self.folder).stems
        names = [path.name for path in self.folder.iterdir() if path.suffix in MODEL_SUFFIXES]
        used = sorted(name for name in names if name.partition(".")[0] in stems)
        files = {name: sha256(self.folder / name) for name in [SPEC_NAME, *used]}
        text = json.dumps([files, self.engine, self.precision], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]

    def open(self, layout: str) -> tuple[Failover, Layout]:
        """The models in a layout, or where that is "auto" in the fastest one here."""
        layouts = calibration.candidates(self.threads or usable_cores())
        wanted = layouts if layout == "auto" else [Layout.parse(layout)]
        fastest = calibration.calibrate(self._open, wanted)
        return Failover(fastest.loaded, lambda avoid: self._open(fastest.layout, avoid)), fastest.layout

    def _open(self, layout: Layout, avoid: Sequence[str] = ()) -> ensemble.Loaded:
        lower = None if self.precision == "auto" else ()
        return ensemble.load(self.folder, layout, self.engine, lower, avoid=avoid)

    def describe(self, models: Failover, layout: Layout, key: str) -> Model:
        """What the tables need to know of these models."""
        contract = models.contract
        name = f"{self.folder.resolve().name}-{key[:8]}"
        return Model(name, contract.classes, contract.window_s, contract.sample_rate, str(layout))
