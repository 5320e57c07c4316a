from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from birdkit.errors import UserError
from train.config import recipe, settings
from train.config.job import job_of


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("path", sorted(recipe.RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_kit_loads_and_survives_json(path: Path) -> None:
    loaded = recipe.load(path.stem)
    assert loaded.name == path.stem
    assert recipe.from_json(recipe.to_json(loaded), "here") == loaded


@pytest.mark.parametrize("path", sorted(recipe.RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_kit_takes_another_encoder(path: Path) -> None:
    loaded = recipe.load(path.stem, ["models.encoder=test_resnet"])
    assert {model.encoder for model in loaded.models} == {"test_resnet"}


def test_a_recipe_is_a_list_of_differences(tmp_path: Path) -> None:
    loaded = recipe.load(write(tmp_path, "[fit]\nepochs = 3\n"))
    assert loaded == settings.Recipe(name="mine", fit=settings.Fit(epochs=3))


def test_an_unknown_key_names_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.toml: fit: unknown key 'epoch'; did you mean 'epochs'"):
        recipe.load(write(tmp_path, "[fit]\nepoch = 3\n"))
    with pytest.raises(UserError, match="unknown key 'augmnt'; did you mean 'augment'"):
        recipe.load(write(tmp_path, "[augmnt]\n"))


def test_a_key_that_is_near_none_is_answered_with_the_keys_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"unknown key 'zebra'; known are accumulate, .*batch, .*warmup"
    ) as error:
        recipe.load(write(tmp_path, "[fit]\nzebra = 3\n"))
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[fit]\nepochs = "3"\n', r"fit: epochs: expected a whole number from 1 to 10000, got '3'"),
        ("[fit]\nepochs = true\n", "fit: epochs: expected a whole number .*, got True"),
        ("fit = 3\n", "fit: expected a table, got 3"),
        (
            "[postprocess]\nsmoothing = 1\n",
            "smoothing: expected a list, each a number from 0 .*, got 1",
        ),
        ("[fit\n", "not valid TOML"),
        ("[fit]\nepochs = 0\n", "fit: epochs: expected a whole number from 1 .*, got 0"),
        ("[frontend]\nhop = 4096\n", "hop 4096 is above frontend.n_fft 2048"),
        ("[frontend]\nn_fft = 2001\n", "2001 must be even"),
        ("[frontend]\nfmin_hz = 16000\n", "fmin_hz < fmax_hz"),
        ("[data]\nfold = 5\n", "data.fold 5 is not below data.n_folds 5"),
        ("[data]\nwindow_s = 6\n", "data.window_s 6 is above data.chunk_s 5"),
        ("[augment]\nnoise_snr_db = [3, 1]\n", "put the lower one first"),
        ("[augment]\nnoise_snr_db = [1]\n", "expected a list of 2, each a number from -60 to 100"),
        ("[postprocess]\nsmoothing = [0.5, 0.5]\n", "an odd number of weights"),
        ("[postprocess]\nsmoothing = [0]\n", "a sum above 0"),
        ("[postprocess]\npooling = 'hard'\n", "pooling"),
        ("[[models]]\nname = '../../escape'\n", r"models\.0: name: .*of letters, .*got '../../escape'"),
        ("[[models]]\nfit.lr = nan\n", "models.0: fit: lr: expected a number from 0 to 1, got nan"),
        ("name = ''\n", "name: expected a text"),
        ("[frontend]\nfmax_hz = 20000\n", "20000 Hz at 32000 Hz"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe.load(write(tmp_path, text))


def test_overrides_reach_tables_lists_and_every_model(tmp_path: Path) -> None:
    path = write(tmp_path, "[[models]]\n[[models]]\n")
    loaded = recipe.load(
        path, ["fit.lr=1", "models.encoder=resnet18", "models.1.weights=none", "data.fold=-1"]
    )
    assert loaded.fit.lr == 1.0
    assert [m.encoder for m in loaded.models] == ["resnet18"] * 2
    assert [m.weights for m in loaded.models] == ["timm", "none"]
    assert loaded.data.fold == -1


def test_an_override_without_a_value_and_an_unknown_recipe_are_named() -> None:
    with pytest.raises(UserError, match="write key=value"):
        recipe.load("demo", ["fit.lr"])
    with pytest.raises(
        UserError,
        match=r"'nonsense': no such .* birdclef2025, birdclef2026, birdnet_teacher, demo, mini",
    ):
        recipe.load("nonsense")


def test_members_of_one_encoder_get_folders_of_their_own() -> None:
    models = (
        settings.ModelEntry("a.x"),
        settings.ModelEntry("a.x"),
        settings.ModelEntry("a.y"),
        settings.ModelEntry("b", name="c"),
    )
    names = recipe.member_names(settings.Recipe(models=models))
    assert names == ["a", "a-2", "a-3", "c"]


ROUNDS = """
[[models]]
name = "a"
[[models]]
name = "b"
[[rounds]]
models = ["a"]
[[rounds]]
pseudo.output = "clipwise"
repeat = 2
[[rounds]]
models = ["b"]
teacher = ["a"]
"""


def test_a_model_that_is_repeated_is_as_many_models(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[[models]]\nencoder = 'a'\nrepeat = 2\n[[models]]\nencoder = 'a'\nfit.lr = 0.5\n")
    loaded = recipe.load(str(path))
    assert recipe.member_names(loaded) == ["a", "a-2", "a-3"]
    assert [job_of(loaded, 0, name).fit.lr for name in ("a", "a-2", "a-3")] == [0.001, 0.001, 0.5]
    assert recipe.from_json(recipe.to_json(loaded), "run") == loaded
    seeds = {job_of(loaded, 0, name).seed for name in ("a", "a-2", "a-3")}
    assert len(seeds) == 3


def test_rounds_are_listed_one_by_one_each_taught_by_the_one_before(tmp_path: Path) -> None:
    rounds = recipe.rounds_of(recipe.load(write(tmp_path, ROUNDS)))
    assert [each.models for each in rounds] == [("a",), ("a", "b"), ("a", "b"), ("b",)]
    assert [each.teacher for each in rounds] == [(), ("a",), ("a", "b"), ("a",)]
    assert [each.pseudo.output for each in rounds[1:]] == ["clipwise", "clipwise", "segmentwise"]


@pytest.mark.parametrize(
    ("teacher", "taught_by"),
    [("[]", ("b",)), ('["*"]', ("b",)), ('["*", "own", "b"]', ("b", "own")), ('["a"]', ("a",))],
)
def test_a_model_that_does_not_teach_is_a_teacher_where_it_is_named(
    tmp_path: Path, teacher: str, taught_by: tuple[str, ...]
) -> None:
    text = (
        "[[models]]\nname = 'a'\nteaches = false\n[[models]]\nname = 'b'\n"
        "[[teachers]]\nname = 'own'\nkind = 'table'\npath = 'own.parquet'\n"
        f"[[rounds]]\n[[rounds]]\nteacher = {teacher}\n"
    )
    rounds = recipe.rounds_of(recipe.load(write(tmp_path, text)))
    assert [each.models for each in rounds] == [("a", "b"), ("a", "b")]
    assert [each.teacher for each in rounds] == [(), taught_by]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[rounds]]\nmodels = ["c"]\n', "round 0: model 'c' is not among tf_efficientnet_b3"),
        ('[[rounds]]\nteacher = ["c"]\n', "round 0: teacher 'c' is not among any"),
        (
            "[[models]]\nteaches = false\n[[rounds]]\n[[rounds]]\n",
            "round 1: of tf_efficientnet_b3 none has models.teaches; set it",
        ),
        (
            "[[rounds]]\nrepeat = 0\n",
            "rounds.0: repeat: expected a whole number .*, got 0",
        ),
        ("rounds = []\n", "at least one"),
        ("[[rounds]]\nfit = 3\n", "fit: expected a table"),
        ('[[rounds]]\npseudo.output = "framewise"\n', 'expected one of "segmentwise", "clipwise", got'),
        ("[[rounds]]\npseudo.share = 1.5\n", "pseudo: share: expected a number from 0 to 1, got 1.5"),
        ("[[rounds]]\npseudo.distil = 0.5\n", "'distil' was removed in November 2026: .*experiments"),
        ('[[rounds]]\npseudo.scale = "rank"\n', "'scale' was removed in November 2026: ranks"),
        ("[[rounds]]\npseudo.after = 0.0\n", "'after' was removed in November 2026: .*delete it"),
        (
            "[[rounds]]\npseudo.shifts = [1.0]\n",
            "shifts.0: expected a number from 0.01 to 0.99, got 1.0",
        ),
        (
            f"{ROUNDS}pseudo.out_of_fold = true\n",
            "round 3: pseudo.out_of_fold needs two models or more",
        ),
        ("[[rounds]]\npseudo.unsure = [0.5, 0.1]\n", "two probabilities, the lower first"),
        ('[data]\nspeech = "no"\n', 'speech: expected one of "keep", "cut", "half", got .no.'),
    ],
)
def test_a_mistake_in_a_round_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe.load(write(tmp_path, text))


def test_the_write_ups_recipe_is_its_plan() -> None:
    rounds = recipe.rounds_of(recipe.load("birdclef2025"))
    assert [each.models for each in rounds] == [
        ("b3",), ("b3", "b5", "v2_b3"), ("b3", "b5", "v2_b3"), ("b3", "v2_b3"),
    ]  # fmt: skip
    assert [each.teacher for each in rounds] == [
        (), ("b3",), ("b3", "b5", "v2_b3"), ("b3", "b5", "v2_b3"),
    ]  # fmt: skip
    assert [each.pseudo.output for each in rounds[1:]] == ["clipwise", "segmentwise", "segmentwise"]
    assert not any(each.pseudo.out_of_fold for each in rounds)


def test_recipes_hold_differences_only() -> None:
    """A key that repeats its default is noise to the reader."""
    for path in recipe.RECIPES.glob("*.toml"):
        table = tomllib.loads(path.read_text())
        for section in ("frontend", "data", "augment", "fit", "postprocess"):
            default = getattr(settings.Recipe(), section)
            for key, value in table.get(section, {}).items():
                assert value != getattr(default, key), f"{path.name}: {section}.{key}"


@pytest.mark.parametrize(
    "override",
    [
        'models.name="../../escape"',
        'models.name="/etc/x"',
        'models.name="a/b"',
        'models.name=".hidden"',
        'models.encoder="../x.y"',
        'name="../../escape"',
        'name=""',
    ],
)
def test_a_name_that_leads_out_of_its_folder_is_refused(override: str) -> None:
    with pytest.raises(UserError, match=r"(name: expected a text of letters|is no name of a folder)"):
        recipe.load("demo", [override])
