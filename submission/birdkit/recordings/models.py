"""The models of a batch: what they are known by, and how they are opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

from birdkit.contract import Contract
from birdkit.engines import ladder
from birdkit.engines.layout import Layout, one_stream, usable_cores
from birdkit.engines.onnx_graphs import metadata
from birdkit.files import sha256
from birdkit.outside.card import CARD_SUFFIX
from birdkit.outside.probe import SUFFIX as PROBE_SUFFIX
from birdkit.recordings.journal import Model
from birdkit.scoring import calibration, ensemble
from birdkit.scoring.engine_failover import Failover
from birdkit.scoring.ensemble import SPEC_NAME, Spec

MODEL_SUFFIXES = (".onnx", ".xml", ".bin", ".tflite", CARD_SUFFIX, PROBE_SUFFIX)
KEY_DIGITS, SHOWN_DIGITS = 16, 8


@dataclass(frozen=True)
class Opened:
    """Models that are open, and the layout that they run in."""

    models: Failover
    layout: Layout


@dataclass(frozen=True)
class ModelFolder:
    """A model folder and how it is to be run. Raises `UserError` where it holds no models.

    Parameters
    ----------
    engine, precision : as options of the submission
    threads : 0: the cores usable here
    layout : one to take, "auto" to measure the fastest, or None
    """

    folder: Path
    engine: str = "auto"
    precision: str = "auto"
    threads: int = 0
    layout: str | None = None

    def __post_init__(self) -> None:
        ladder.refuse_unknown(self.engine)
        ladder.check_files(self.folder, Spec.load(self.folder).stems)
        if self.layout not in (None, "auto"):
            Layout.parse(self.layout)

    @property
    def key(self) -> str:
        """Digits of a SHA-256 over all that changes scores: models, spec, and how they run."""
        spec = Spec.load(self.folder)
        stems = (*spec.stems, *spec.soft)
        names = [path.name for path in self.folder.iterdir() if path.name.endswith(MODEL_SUFFIXES)]
        used = sorted(name for name in names if name.partition(".")[0] in stems)
        files = {name: sha256(self.folder / name) for name in [SPEC_NAME, *used]}
        text = json.dumps([files, self.engine, self.precision], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]

    @property
    def name(self) -> str:
        """What tables and marks call these models: the folder, with the first digits of the key."""
        return f"{self.folder.resolve().name}-{self.key[:SHOWN_DIGITS]}"

    def told(self) -> Model | None:
        """What the tables need to know, as the ONNX files tell it, without an engine's memory.

        None where there are none, or where the layout is to be measured.
        """
        paths = {stem: self.folder / f"{stem}.onnx" for stem in Spec.load(self.folder).stems}
        if self.layout == "auto" or not all(path.is_file() for path in paths.values()):
            return None
        contracts = {}
        for stem, path in paths.items():
            with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
                contracts[stem] = Contract.from_metadata(metadata(content), str(path))
        layout = self.layout or str(one_stream(self.threads or usable_cores()))
        return self._model(ensemble.common_contract(contracts), layout)

    def open(self, before: str | None) -> Opened:
        """Open the models in the layout that was asked for, else in the one they ran in before.

        Else in one stream on all threads, because its memory does not grow with the cores. To measure
        takes twice the memory of what is measured.
        """
        cores = self.threads or usable_cores()
        given = before if self.layout in (None, "auto") else self.layout
        if given is None and self.layout == "auto":
            fastest = calibration.calibrate(self._load, calibration.candidates(cores))
            return self._opened(fastest.loaded, fastest.layout)
        layout = Layout.parse(given) if given else one_stream(cores)
        return self._opened(self._load(layout), layout)

    def describe(self, opened: Opened) -> Model:
        """What the tables need to know of these models."""
        return self._model(opened.models.contract, str(opened.layout))

    def _model(self, contract: Contract, layout: str) -> Model:
        return Model(self.name, contract.classes, contract.window_s, contract.sample_rate, layout)

    def _opened(self, loaded: ensemble.Loaded, layout: Layout) -> Opened:
        return Opened(Failover(loaded, lambda avoid: self._load(layout, avoid)), layout)

    def _load(self, layout: Layout, avoid: Sequence[str] = ()) -> ensemble.Loaded:
        lower = None if self.precision == "auto" else ()
        return ensemble.load(self.folder, layout, self.engine, lower, avoid=avoid)
