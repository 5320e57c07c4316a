"""What training validates is what the submission scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.grid import row_ids
from birdkit.kaggle.table import ROW_ID
from birdkit.scoring.ensemble import Ensemble, Spec, combine
from birdkit.scoring.parts import SoundFile
from tests.conftest import submit_validation, tiny_predictor, write_sound
from train.data.competition import Recording
from train.data.soundscapes import LabelledSoundscape
from train.models.checkpoint import Final
from train.scoring import evaluate
from train.scoring.auc import macro_auc
from train.scoring.evaluate import TorchEngine, held_out_set, soundscape_set, validation_set
from train.scoring.submitted import score_submission

CPU = torch.device("cpu")


def test_the_validation_figure_is_that_of_the_submitted_table(
    competition: Path, run_dir: Path, model_dir: Path, tmp_path: Path
) -> None:
    validation = competition / "validation"
    out = tmp_path / "s.csv"
    submit_validation(competition, model_dir, out)
    finals = {path.parent.name: Final.load(path) for path in run_dir.glob("round0/*/final.pt")}
    engines = {name: TorchEngine(final.predictor(), CPU) for name, final in finals.items()}
    spec = Spec.load(model_dir)
    contract = next(iter(finals.values())).contract
    truth_set = validation_set(validation, contract)
    ours = evaluate.evaluate(engines, spec, truth_set)[spec.output]
    submitted = score_submission(out, validation)
    assert ours.n_scored == submitted.n_scored > 0
    # Cell by cell, since a pair of near-random scores that flips moves the figure by more.
    scores = evaluate.member_scores(Ensemble(engines, spec), truth_set)[spec.output]
    rows = truth_set.rows(combine(scores, spec))
    ids = [
        name
        for file in truth_set.files
        for name in row_ids(file.path.stem, file.n_windows, contract.window_s)
    ]
    table = pd.read_csv(out, index_col=ROW_ID).loc[ids, list(contract.classes)].to_numpy()
    np.testing.assert_allclose(rows, table, atol=1e-5)
    assert ours.macro == macro_auc(truth_set.truth, rows).macro
    assert submitted.macro == pytest.approx(macro_auc(truth_set.truth, table).macro, abs=1e-12)
    # The mask counts: without it the figure is another one.
    bare = macro_auc(truth_set.truth, np.random.default_rng(0).random(truth_set.truth.labels.shape))
    assert truth_set.truth.decided.mean() < 1
    assert bare.macro != ours.macro


class Loudness:
    """Answers class 0 by a chunk's loudness, and the opposite for class 1."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    def __call__(self, chunks: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        loud = np.abs(chunks).mean(axis=1, keepdims=True)
        clipwise = np.concatenate([loud, 1 - loud, 0.5 + 0 * loud], axis=1).astype(np.float32)
        return {"clipwise": clipwise, "segmentwise": clipwise}


def test_a_held_out_recording_is_judged_by_its_best_window_and_not_on_its_secondary_labels(
    tmp_path: Path, contract: Contract
) -> None:
    loud, quiet = (tmp_path / name for name in ("loud.wav", "quiet.wav"))
    write_sound(loud, 12.0)
    write_sound(quiet, 1.0)  # mostly silence once it is padded
    recordings = [Recording(loud, "a", (), "x", 12.0), Recording(quiet, "b", ("a",), "y", 1.0)]
    truth_set = held_out_set(recordings, contract)
    assert truth_set is not None
    assert [file.n_windows for file in truth_set.files] == [3, 1]
    np.testing.assert_array_equal(truth_set.truth.decided[1], [False, True, True])
    found = evaluate.evaluate({"m": Loudness(contract)}, Spec({"m": 1.0}), truth_set)["clipwise"]
    assert found.per_class == {1: 1.0}  # class a is left with one recording, and no negative
    assert held_out_set([], contract) is None


def test_windows_that_nobody_labelled_are_undecided(tmp_path: Path, contract: Contract) -> None:
    path = write_sound(tmp_path / "s.wav", 15.0)
    labels = ((0.0, 5.0, ("a",)), (10.0, 15.0, ("b",)))
    truth_set = soundscape_set([LabelledSoundscape(path, labels)], contract)
    assert truth_set is not None
    np.testing.assert_array_equal(truth_set.truth.decided[:, 0], [True, False, True])
    np.testing.assert_array_equal(truth_set.truth.labels.argmax(axis=1)[[0, 2]], [0, 1])
    assert soundscape_set([], contract) is None


def test_undecided_cells_do_not_count(tmp_path: Path, contract: Contract) -> None:
    files = [write_sound(tmp_path / f"s{i}.wav", 5.0 - i) for i in range(3)]  # ever quieter
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=bool)
    decided = np.ones_like(truth)
    sounds = tuple(SoundFile(path, 1) for path in files)
    everything = evaluate.TruthSet.of("x", sounds, truth, decided)
    wrong_left_out = evaluate.TruthSet.of("x", sounds, truth, decided & ~np.eye(3, dtype=bool)[::-1])
    engine, spec = {"m": Loudness(contract)}, Spec({"m": 1.0})
    assert evaluate.evaluate(engine, spec, everything)["clipwise"].macro < 1
    assert evaluate.evaluate(engine, spec, wrong_left_out)["clipwise"].macro == 1


def test_a_file_that_cant_be_scored_stops_the_validation_by_name(
    tmp_path: Path, contract: Contract
) -> None:
    (tmp_path / "bad.ogg").write_bytes(b"garbage")
    soundscape = LabelledSoundscape(tmp_path / "bad.ogg", ((0.0, 5.0, ("a",)),))
    engines = {"m": TorchEngine(tiny_predictor(contract).eval(), CPU)}
    truth_set = soundscape_set([soundscape], contract)
    assert truth_set is not None
    with pytest.raises(UserError, match=r"soundscapes: bad\.ogg can't be scored"):
        evaluate.evaluate(engines, Spec({"m": 1.0}), truth_set)


def test_the_order_of_truth_csv_does_not_matter(competition: Path, tmp_path: Path) -> None:
    source = competition / "validation"
    (tmp_path / "soundscapes").symlink_to(source / "soundscapes")
    for name in ("truth.csv", "mask.csv"):
        table = pd.read_csv(source / name)
        table.sample(frac=1.0, random_state=1).to_csv(tmp_path / name, index=False)
    classes = tuple(pd.read_csv(source / "truth.csv", nrows=0).columns[1:])
    shuffled, plain = (
        validation_set(folder, Contract(32000, 5.0, 5.0, classes)) for folder in (tmp_path, source)
    )
    by_file = {
        file.path.name: shuffled.truth.labels[12 * i : 12 * i + 12]
        for i, file in enumerate(shuffled.files)
    }
    for i, file in enumerate(plain.files):
        np.testing.assert_array_equal(by_file[file.path.name], plain.truth.labels[12 * i : 12 * i + 12])


def test_a_validation_folder_without_truth_or_with_other_classes_is_named(
    tmp_path: Path, contract: Contract
) -> None:
    with pytest.raises(UserError, match=r"truth\.csv: not found"):
        validation_set(tmp_path, contract)
    (tmp_path / "truth.csv").write_text("row_id,a,b\ns_5,1,0\n")
    with pytest.raises(UserError, match="lacks the classes 1234"):
        validation_set(tmp_path, contract)
    (tmp_path / "truth.csv").write_text("row_id,a,b,1234\ns_5,1,0,0\ns_15,0,0,0\n")
    with pytest.raises(UserError, match=r"row s_15 leaves a gap in the grid of 5 s"):
        validation_set(tmp_path, contract)
