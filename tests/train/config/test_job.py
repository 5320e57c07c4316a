"""The job of one model of one round: what it depends on, and what a model can have for itself."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from birdkit.errors import UserError
from tests.train.config.test_recipe import ROUNDS, write
from train.config import recipe
from train.config.job import Job, from_version_3, job_of
from train.config.settings import Pseudo, Recipe


def every_job(base: Recipe) -> list[Job]:
    """The jobs of all rounds, in order."""
    rounds = enumerate(recipe.rounds_of(base))
    return [job_of(base, index, name) for index, one in rounds for name in one.models]


def test_a_job_holds_what_its_checkpoint_depends_on_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, ROUNDS)
    base = recipe.load(path)

    def same(override: str, index: int, name: str) -> bool:
        return job_of(recipe.load(path, [override]), index, name) == job_of(base, index, name)

    assert same("models.1.drop_rate=0.1", 1, "a")
    assert not same("models.1.drop_rate=0.1", 1, "b")
    assert same("rounds.2.pseudo.power=2", 2, "a")  # of the last round: the one listed third
    assert not same("rounds.1.pseudo.power=2", 2, "a")
    assert same("rounds.pseudo.alarms.action=stop", 1, "a")
    assert not same("fit.lr=0.1", 0, "a")
    assert not same("rounds.1.pseudo.out_of_fold=true", 1, "a")


def test_members_have_seeds_of_their_own_and_keep_them_from_round_to_round(tmp_path: Path) -> None:
    base = recipe.load(write(tmp_path, ROUNDS))
    seed = {
        (index, name): job_of(base, index, name).seed for index, name in ((0, "a"), (1, "a"), (1, "b"))
    }
    assert seed[0, "a"] == seed[1, "a"] != seed[1, "b"]


def test_a_round_that_goes_on_from_the_last_has_a_fit_of_its_own_and_draws_other_batches(
    tmp_path: Path,
) -> None:
    text = ROUNDS.replace("repeat = 2", "repeat = 2\nwarm = true\nfit.lr = 0.5")
    base = recipe.load(write(tmp_path, text))
    configs = [job_of(base, index, "a") for index in range(3)]
    assert [each.fit.lr for each in configs] == [base.fit.lr, 0.5, 0.5]
    assert [each.fit.epochs for each in configs] == [base.fit.epochs] * 3
    assert len({each.seed for each in configs}) == 3
    assert recipe.from_json(recipe.to_json(base), "again") == base


def test_a_model_can_have_settings_of_its_own_in_every_section(tmp_path: Path) -> None:
    own = """
[[models]]
name = "a"
[[models]]
name = "b"
frontend.hop = 320
data.fold = 1
data.chunk_s = 10.0
augment.mixup = 0.0
fit.lr = 0.5
pseudo.power = 2.0
postprocess.stretch_s = 60.0
[[rounds]]
[[rounds]]
fit.batch = 8
"""
    base = recipe.load(write(tmp_path, own))
    a, b = job_of(base, 1, "a"), job_of(base, 1, "b")
    assert (b.frontend.hop, b.data.fold, b.data.chunk_s, b.augment.mixup) == (320, 1, 10.0, 0.0)
    assert (b.fit.lr, b.fit.batch, b.pseudo.power) == (0.5, 8, 2.0)
    assert (a.frontend.hop, a.data, a.augment) == (base.frontend.hop, base.data, base.augment)
    assert (a.fit.lr, a.fit.batch, a.pseudo.power) == (base.fit.lr, 8, 1.0)
    assert (a.postprocess.stretch_s, b.postprocess.stretch_s) == (0.0, 60.0)
    assert job_of(base, 0, "b").pseudo == Pseudo()


def test_a_rounds_fit_and_data_stand_above_a_models_own(tmp_path: Path) -> None:
    text = (
        "[[models]]\nfit.lr = 0.5\ndata.chunk_s = 8.0\n"
        "[[rounds]]\n[[rounds]]\nfit.lr = 0.1\ndata.chunk_s = 10.0\n"
    )
    jobs = every_job(recipe.load(write(tmp_path, text)))
    assert [(job.fit.lr, job.data.chunk_s) for job in jobs] == [(0.5, 8.0), (0.1, 10.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rounds]]\nfit.rate = 0.1\n", r"mine\.toml: rounds\.0: fit: unknown key 'rate'"),
        (
            "[[rounds]]\nfit.lr = 'low'\n",
            "0: fit: lr: expected a number from 0 to 1, got 'low'",
        ),
        ("[[models]]\nfrontend.mels = 3\n", r"unknown key 'mels'; did you mean 'n_mels'"),
        ("[postprocess]\nstretch_s = 7\n", "stretch_s 7 is no multiple of data.window_s 5"),
        (
            "[[models]]\npostprocess.stretch_s = 2.5\n",
            "stretch_s 2.5 is no multiple of data.window_s 5",
        ),
        ("[[models]]\npostprocess.pooling = 'plain'\n", r"set it in \[postprocess\]"),
        ("[[models]]\nframewise.x = 3\n", "unknown key 'framewise'"),
        ("[[models]]\ndata.window_s = 3.0\n", r"data\.window_s: has one value for all models"),
        ("[[rounds]]\ndata.labelled = 'train'\n", r"rounds\.0\.data\.labelled: has one value"),
        ("[[models]]\nfrontend.sample_rate = 16000\n", r"set it in \[frontend\]"),
        ("[[models]]\npseudo.output = 'clipwise'\n", "set it in the round's pseudo settings"),
    ],
)
def test_a_mistake_in_the_settings_of_a_model_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        every_job(recipe.load(write(tmp_path, text)))


def version_3(job: Job, **pseudo: object) -> dict[str, object]:
    """The recipe that a checkpoint of version 3 held for a job."""
    table = asdict(job)
    own = {"models": [job.model.name], "teacher": [], "repeat": 1, "warm": job.warm, "fit": {}}
    gone = {"distil": 0.0, "scale": "probability", "after": 0.0}
    sections = ("frontend", "data", "augment", "fit", "postprocess")
    return {
        **{name: table[name] for name in sections},
        "name": job.recipe,
        "models": [table["model"]],
        "rounds": [own | {"pseudo": table["pseudo"] | gone | pseudo}],
    }


def test_a_checkpoints_recipe_of_version_3_is_read_as_its_job(tmp_path: Path) -> None:
    base = recipe.load(write(tmp_path, ROUNDS.replace("repeat = 2", "repeat = 2\nwarm = true")))
    for index, name in ((0, "a"), (1, "b"), (3, "b")):
        job = job_of(base, index, name)
        table, removed = from_version_3(json.loads(json.dumps(version_3(job))))
        assert removed == []
        assert Job.from_table(table, "here") == job
    table, removed = from_version_3(json.loads(json.dumps(version_3(job, distil=0.5))))
    assert removed == ["distil=0.5"]
    assert Job.from_table(table, "here") == job
    folds = replace(job, pseudo=replace(job.pseudo, out_of_fold=True), folds_among=("b",))
    assert Job.from_table(from_version_3(version_3(folds))[0], "here") == folds
