"""Makes the lower precisions of a model folder and keeps those that their gate accepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from birdkit import audio
from birdkit.contract import Contract
from birdkit.engines import golden
from birdkit.engines.ladder import open_model
from birdkit.engines.layout import one_stream, usable_cores
from birdkit.engines.openvino_graphs import contract_of
from birdkit.engines.precision import LOWER_PRECISIONS, REMOVED_PRECISIONS, lacking
from birdkit.errors import UserError
from birdkit.grid import WINDOWS_A_MINUTE
from birdkit.kaggle.mounts import soundscapes, train_soundscapes
from birdkit.log import LOG
from birdkit.scoring import ensemble
from birdkit.scoring.calibration import calibrate, candidates
from birdkit.scoring.ensemble import Spec
from export.gates import precision
from export.gates.selection import Labelled
from export.models import openvino, quantize
from train.scoring.evaluate import TruthSet


def wanted(text: str) -> list[str]:
    """The lower precisions of a comma-separated list. Raises `UserError` naming an unknown one."""
    names = [name for name in text.split(",") if name not in ("", "f32")]
    for name in names:
        if name in REMOVED_PRECISIONS:
            raise UserError(f"--precision {name}: {REMOVED_PRECISIONS[name]}")
        if name not in LOWER_PRECISIONS:
            known = ", ".join(("f32", *LOWER_PRECISIONS))
            raise UserError(f"--precision {name} is unknown; choose from {known}")
    return names


class LowerPrecisions:
    """Makes each lower precision of a model folder, and judges it against f32."""

    def __init__(self, folder: Path, data: Path, labelled: TruthSet) -> None:
        self.folder, self.data, self.labelled = folder, data, labelled
        self.spec = replace(Spec.load(folder), precisions=())
        in_f32 = calibrate(
            lambda layout: ensemble.load(folder, layout, "openvino", ()), candidates(usable_cores())
        )
        self.layout = in_f32.layout
        LOG.info(f"f32: {in_f32}")
        self.f32 = precision.table(folder, (), self.layout, labelled)

    def judge(self, name: str) -> precision.Verdict:
        """Figures of one precision; its files stay in the folder only where it is accepted."""
        if name == "int8":
            self._make_int8()
        lower = precision.table(self.folder, (name,), self.layout, self.labelled)
        verdict = precision.compare(name, self.f32, lower, self.labelled)
        for stem in self.spec.stems:
            if verdict.faults():
                for path in self.folder.glob(f"{stem}.{name}.*"):
                    path.unlink()
            else:
                opened = open_model(self.folder / stem, one_stream(1), "openvino", [name])
                golden.record(self.folder, stem, name, opened.engine)
        return verdict

    def _make_int8(self) -> None:
        for stem in self.spec.stems:
            model = openvino.read(self.folder / f"{stem}.xml")
            quantised = quantize.to_int8(model, self._calibration(model, contract_of(model, stem)))
            openvino.save(quantised, self.folder / f"{stem}.int8.xml")

    def _calibration(self, model: Any, contract: Contract) -> quantize.LogMels:
        """Windows of soundscapes, those without labels first: the gate judges on the others."""
        judged = {file.path for file in self.labelled.files}
        every = soundscapes(train_soundscapes(self.data))
        chosen = sorted(every, key=lambda path: path in judged)
        enough = chosen[: -(-quantize.CALIBRATION_WINDOWS // WINDOWS_A_MINUTE)]
        # One call for all, since each call compiles the front end.
        waveforms = [audio.read(path, contract.sample_rate) for path in enough]
        return quantize.log_mels(model, contract, waveforms, WINDOWS_A_MINUTE)


def try_precisions(folder: Path, data: Path | None, judging: Labelled, names: Sequence[str]) -> None:
    """Judge each precision, keep the accepted ones in the spec, fastest first, and the figures."""
    labelled = judging.truth_set
    unjudged = "" if labelled else f"since {judging.note}"
    not_tried = {name: why for name in names if (why := lacking(name) or unjudged)}
    for name, why in not_tried.items():
        LOG.info(f"{name}: not tried, {why}")
    verdicts: list[precision.Verdict] = []
    if labelled and data and len(not_tried) < len(names):
        if judging.note:
            LOG.info(judging.note)
        lower = LowerPrecisions(folder, data, labelled)
        for name in names:
            if name not in not_tried:
                verdicts.append(lower.judge(name))
                LOG.info(verdicts[-1])
    replace(Spec.load(folder), precisions=precision.order_of_use(verdicts)).save(folder)
    if names:
        precision.save(folder, verdicts, not_tried)
