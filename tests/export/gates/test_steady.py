"""Groups whose sounds go on over windows are smoothed, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from birdkit.scoring.ensemble import Spec, combine
from birdkit.scoring.parts import SoundFile
from export.gates.steady import steady_groups
from train.scoring.evaluate import TruthSet

N_FILES, N_WINDOWS = 16, 12
# Four frogs that call for six windows on end, and four birds that call once.
CLASSES = tuple("abcdefgh")
GROUPS = dict.fromkeys("abcd", "Amphibia") | dict.fromkeys("efgh", "Aves")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> TruthSet:
    truth = np.zeros((N_FILES, N_WINDOWS, len(CLASSES)), dtype=bool)
    for file in range(N_FILES):
        for column in range(file % 2, len(CLASSES), 2):
            first = (file + column) % 6
            truth[file, first : first + (6 if column < 4 else 1), column] = True
    path = tmp_path_factory.mktemp("sounds") / "x.ogg"
    files = tuple(SoundFile(path, N_WINDOWS) for _ in range(N_FILES))
    labels = truth.reshape(-1, len(CLASSES))
    return TruthSet.of("labelled", files, labels, np.ones_like(labels))


@pytest.fixture(scope="module")
def scores(labelled: TruthSet) -> list[NDArray[np.float32]]:
    """What one member hears: the truth, under noise."""
    noise = np.random.default_rng(0).normal(0, 0.6, labelled.truth.labels.shape)
    heard = np.asarray(labelled.truth.labels + noise, dtype=np.float32)
    return list(heard.reshape(N_FILES, 1, N_WINDOWS, -1))


def test_the_group_that_calls_on_and_on_is_smoothed_and_the_other_is_not(
    labelled: TruthSet, scores: list[NDArray[np.float32]]
) -> None:
    spec = Spec({"m": 1.0})
    chosen, lines = steady_groups(spec, scores, labelled, CLASSES, GROUPS)
    assert chosen.steady == (0, 1, 2, 3)
    assert [line.split(":")[0] for line in lines] == [
        "Amphibia smoothed over windows", "Aves not smoothed over windows",
    ]  # fmt: skip
    before, after = (labelled.auc(combine(scores, each)).per_class for each in (spec, chosen))
    assert all(after[column] > before[column] for column in range(4))
    assert [after[column] for column in range(4, 8)] == [before[column] for column in range(4, 8)]


def test_a_group_of_two_judged_classes_is_left_as_it_is(
    labelled: TruthSet, scores: list[NDArray[np.float32]]
) -> None:
    few = dict.fromkeys("ab", "Amphibia")
    assert steady_groups(Spec({"m": 1.0}), scores, labelled, CLASSES, few) == (Spec({"m": 1.0}), [])
    assert steady_groups(Spec({"m": 1.0}), scores, labelled, CLASSES, {})[0].steady == ()
