from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from birdkit.contract import Contract
from birdkit.errors import UserError
from birdkit.scoring.ensemble import Spec
from export.folder import model_card, model_folder
from export.gates import precision
from export.gates.parity import Parity
from export.gates.precision import Verdict
from export.gates.selection import Judgement
from export.models.onnx import MADE_BY_KEY
from train.config.recipe import to_json
from train.config.settings import FrontEnd, ModelEntry, Recipe

RECIPE = Recipe(name="marsh", frontend=FrontEnd(n_mels=96, hop=640))
ONNXRUNTIME = Parity("onnxruntime", 3.3e-6, 1.4e-5, 1.3e-5, 0, 0.99, 32)
OPENVINO = Parity("openvino", 4.1e-6, 1.9e-5, 1.2e-5, 7, 0.87, 32)
INT8 = Verdict("int8", 0.7491, 0.7623, 0.0132, 0.0178, 0.99412, 44.4, 61.3)
BF16 = Verdict("bf16", 0.7626, 0.7623, -0.0003, 0.0004, 0.99992, 57.2, 61.3)


def made_by(
    encoder: str = "tf_efficientnet_lite0", weights: str = "timm", **recipe: Any
) -> dict[str, Any]:
    """What export says of one member."""
    return {
        "recipe": json.loads(
            to_json(replace(RECIPE, models=(ModelEntry(encoder, weights),), **recipe))
        ),
        "commit": "0123456789ab-dirty",
        "checkpoint_sha256": "53183d386ad5" + "0" * 52,
        "weights_from": f"{encoder}: as {weights} has it",
    }


def write_onnx(path: Path, contract: Contract, members: Any = None) -> None:
    """The smallest file with the metadata of a model."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph)
    provenance = {} if members is None else {MADE_BY_KEY: json.dumps(members)}
    helper.set_model_props(model, {**contract.to_metadata(), **provenance})
    onnx.save(model, path)


def cells(page: str, *start: str) -> list[str]:
    """The cells of the one table row of a page that starts with these."""
    rows = [[cell.strip() for cell in line.split(" | ")] for line in page.splitlines()]
    (row,) = [row for row in rows if row[: len(start)] == [f"| {start[0]}", *start[1:]]]
    return [cell.strip("| ") for cell in row]


@pytest.fixture
def folder(tmp_path: Path, contract: Contract) -> Path:
    """Two files, equal in all but their encoders."""
    write_onnx(tmp_path / "lite.onnx", contract, {"lite": made_by()})
    write_onnx(tmp_path / "tiny.onnx", contract, {"tiny": made_by("test_resnet", "none")})
    Spec({"lite": 3.0, "tiny": 1.0}, "segmentwise").save(tmp_path)
    return tmp_path


def page_of(folder: Path) -> str:
    model_card.write(folder, "a machine")
    return (folder / model_card.NAME).read_text(encoding="utf-8")


def test_members_are_named_with_encoder_and_share_of_the_mean(folder: Path) -> None:
    page = page_of(folder)
    assert page.startswith("# Model card: lite + tiny\n")
    assert cells(page, "lite", "tf_efficientnet_lite0")[2:] == ["75%", "5"]
    assert cells(page, "tiny", "test_resnet")[2:] == ["25%", "5"]
    assert "Output `segmentwise` of each" in page
    assert "3 classes" in page
    assert "a to 1234" in page


def test_smoothing_and_averaging_are_the_specs(folder: Path) -> None:
    assert "averaged by probability, not smoothed" in page_of(folder)
    spec = Spec.load(folder)
    replace(spec, averaging="rank", smoothing=(0.25, 0.5, 0.25)).save(folder)
    assert "averaged by rank, smoothed over windows by 0.25, 0.5, 0.25" in page_of(folder)


def test_sizes_are_those_of_the_files_that_are_there(folder: Path) -> None:
    for name, size in [("lite.xml", 400_000), ("lite.bin", 22_000_000), ("lite.int8.bin", 11_200_000)]:
        with (folder / name).open("wb") as file:
            file.truncate(size)
    assert "in order of use: f32." in page_of(folder)
    replace(Spec.load(folder), precisions=("bf16", "int8")).save(folder)
    page = page_of(folder)
    assert "in order of use: bf16, then int8, then f32." in page
    # bf16 is the f32 file compiled otherwise, so it has no column.
    assert cells(page, "file")[1:] == ["ONNX f32, MB", "OpenVINO f32, MB", "OpenVINO int8, MB"]
    assert cells(page, "lite", "0.0")[2:] == ["22.4", "11.2"]
    assert cells(page, "tiny", "0.0")[2:] == ["–", "–"]


def test_its_training_is_said_once_where_members_agree(folder: Path) -> None:
    page = page_of(folder)
    assert (
        page.count("at 32,000 Hz: n_fft 2048 and hop 640 samples, 96 mel bands from 50 to 16,000") == 1
    )
    assert "recipe `marsh`, 15 epochs, batch 32, fold 0 held out (of 5 folds)." in page
    assert "noise in 50% (SNR 0 to 30 dB)" in page


def test_its_training_is_said_of_each_member_where_they_differ(
    folder: Path, contract: Contract
) -> None:
    other = made_by(frontend=FrontEnd(n_mels=64), data=replace(RECIPE.data, fold=-1))
    write_onnx(folder / "tiny.onnx", contract, {"tiny": other})
    page = page_of(folder)
    assert "Front end: lite: log-mel" in page
    assert "; tiny: log-mel" in page
    assert "64 mel bands" in page
    assert "none held out" in page


def test_a_fused_file_is_one_file_of_several_members(tmp_path: Path, contract: Contract) -> None:
    of_members = {"lite": made_by(), "tiny": made_by("test_resnet", "none")}
    fused = replace(contract, members=("lite", "tiny"), chunk_s=20.0)
    write_onnx(tmp_path / "fused.onnx", fused, of_members)
    Spec({"lite": 1.0, "tiny": 1.0}, files={"fused": ["lite", "tiny"]}).save(tmp_path)
    page = page_of(tmp_path)
    assert cells(page, "lite", "tf_efficientnet_lite0")[2:] == ["50%", "20"]
    assert cells(page, "tiny", "test_resnet")[2:] == ["50%", "20"]
    assert cells(page, "fused") == ["fused", "0.0", "–"]


def test_scores_come_with_their_groups_and_a_warning(folder: Path) -> None:
    outputs = {"clipwise": 0.75974, "segmentwise": 0.76198}
    groups = {"Amphibia": (0.7538, 10), "Aves": (0.7659, 21)}
    Judgement(12, 144, 31, outputs, groups, ["output segmentwise: it ranked better"]).save(folder)
    page = page_of(folder)
    assert "12 labelled soundscapes (144 windows" in page
    assert "clipwise 0.7597, segmentwise 0.7620; used: segmentwise" in page
    assert cells(page, "Amphibia") == ["Amphibia", "0.7538", "10"]
    assert cells(page, "Aves") == ["Aves", "0.7659", "21"]
    assert "Choices were made on these soundscapes, so the figures flatter it." in page
    assert "- Chosen: output segmentwise: it ranked better" in page


def test_what_is_absent_is_said_plainly(folder: Path) -> None:
    page = page_of(folder)
    assert "There were no labelled soundscapes" in page
    assert "Not known: the folder has no parity.json." in page
    assert "None was tried: it runs in f32." in page
    assert "Not measured." in page


def test_parity_has_every_number_of_the_file(folder: Path) -> None:
    model_folder.write_parity(folder, {"lite": [ONNXRUNTIME, OPENVINO], "tiny": [ONNXRUNTIME]})
    page = page_of(folder)
    first = ["3.3e-06", "1.4e-05", "1.3e-05", "0", "0.99"]
    assert cells(page, "lite", "onnxruntime")[2:] == first
    assert cells(page, "tiny", "onnxruntime")[2:] == first
    second = ["4.1e-06", "1.9e-05", "1.2e-05", "7", "0.87"]
    assert cells(page, "lite", "openvino")[2:] == second
    # A bar would end the cell.
    assert r"| \|Δp\| | \|Δlogit\| |" in page


def test_a_refused_precision_is_named_with_its_reason(folder: Path) -> None:
    replace(Spec.load(folder), precisions=("bf16",)).save(folder)
    precision.save(folder, [INT8, BF16], {"int4": "this CPU has no int4"})
    page = page_of(folder)
    figures = ["0.7491", "0.7623", "+0.0132", "+0.0178", "0.99412", "44"]
    assert cells(page, "int8")[1:] == [*figures, f"refused: {'; '.join(INT8.faults())}"]
    assert "macro-AUC falls by 0.0132 > 0.001" in page
    assert cells(page, "bf16")[-1] == "accepted"
    assert cells(page, "int4")[1:] == ["–"] * 6 + ["not tried: this CPU has no int4"]
    assert f"rank correlation with f32 of at least {precision.MIN_RANK_CORRELATION}" in page
    assert "in OpenVINO: bf16 57 ms, f32 61 ms; on a machine." in page


def test_speed_is_not_measured_where_this_cpu_could_try_nothing(folder: Path) -> None:
    precision.save(folder, [], {"bf16": "this CPU has no avx512_bf16"})
    assert "Not measured." in page_of(folder)


def test_licences_are_those_of_the_first_weights(folder: Path) -> None:
    page = page_of(folder)
    start = ["tf_efficientnet_lite0: as timm has it", "apache-2.0"]
    assert cells(page, "lite", start[0])[1:] == [*start, "0123456789ab-dirty", "53183d386ad5"]
    assert cells(page, "tiny", "test_resnet: as none has it")[2] == "none: random start"
    assert "often\nCC BY-NC" in page


@pytest.mark.parametrize(
    "encoder, weights, expected",
    [
        ("convnextv2_tiny", "timm", "cc-by-nc-4.0"),
        ("tf_efficientnet_lite0", "package", "apache-2.0, as timm has it"),
        ("tf_efficientnet_lite0", "/weights/mine.pt", "apache-2.0, as timm has it"),
        ("mobilenetv5_base", "timm", model_card.NOT_STATED),  # in timm, without a licence
        ("tf_efficientnet_lite0.no_such_tag", "timm", model_card.NOT_STATED),
        ("no_such_encoder", "/weights/mine.pt", model_card.NOT_STATED),
    ],
)
def test_a_licence_is_timms_or_not_stated(
    contract: Contract, encoder: str, weights: str, expected: Any
) -> None:
    assert model_card.licence(model_card.Member("m", contract, made_by(encoder, weights))).startswith(
        expected
    )


def test_a_recipe_of_another_version_leaves_gaps_and_not_defaults(
    folder: Path, contract: Contract
) -> None:
    origin = made_by()
    del origin["recipe"]["frontend"]["hop"]
    write_onnx(folder / "lite.onnx", contract, {"lite": origin})
    write_onnx(folder / "tiny.onnx", contract)
    page = page_of(folder)
    assert "Front end: not stated." in page
    assert "Training: lite: recipe `marsh`" in page
    assert cells(page, "tiny", model_card.NOT_STATED, "25%")
    assert (
        cells(page, "tiny", model_card.NOT_STATED, model_card.NOT_STATED)[3:]
        == [model_card.NOT_STATED] * 2
    )


def as_job(origin: dict[str, Any]) -> dict[str, Any]:
    """What made a member, as files of the settings of one model store it."""
    sections = dict(origin["recipe"])
    (model,) = sections.pop("models")
    kept = {name: value for name, value in origin.items() if name != "recipe"}
    return {**kept, "job": {**sections, "model": model}}


def test_a_card_made_from_a_job_equals_the_one_made_from_a_recipe(
    folder: Path, contract: Contract
) -> None:
    from_recipes = page_of(folder)
    write_onnx(folder / "lite.onnx", contract, {"lite": as_job(made_by())})
    write_onnx(folder / "tiny.onnx", contract, {"tiny": as_job(made_by("test_resnet", "none"))})
    assert page_of(folder) == from_recipes
    assert "recipe `marsh`, 15 epochs" in from_recipes


EVIL = "<script>x</script>\n# Heading\n[a](http://b) `c` **d** _e_ f\\|g|h \u202eb"


def test_what_comes_from_metadata_is_never_markup(tmp_path: Path, contract: Contract) -> None:
    """Names, recipes, weights, commits, classes and lines that anybody may have written."""
    origin = made_by(EVIL, EVIL) | {"weights_from": EVIL, "commit": EVIL, "checkpoint_sha256": EVIL}
    origin["recipe"]["name"] = EVIL
    origin["recipe"]["fit"]["epochs"] = EVIL
    members = ("m", "n")
    evil = replace(contract, classes=(EVIL, "b", f"c{EVIL}"), members=members)
    write_onnx(tmp_path / "fused.onnx", evil, {members[0]: origin, "n": {"recipe": 3}})
    spec = Spec(dict.fromkeys(members, 1.0), files={"fused": list(members)})
    spec.save(tmp_path)
    Judgement(1, 12, 1, {EVIL: 0.5}, {EVIL: (0.5, 1)}, [EVIL], EVIL).save(tmp_path)
    model_folder.write_parity(tmp_path, {EVIL: [replace(ONNXRUNTIME, engine=EVIL)]})
    precision.save(tmp_path, [], {EVIL: EVIL})
    page = page_of(tmp_path)
    assert len([line for line in page.splitlines() if line.startswith("#")]) == 7
    for markup in ("<script", "](http", "**d", " _e", "`c`", "\\\\|", "\u202e"):
        assert markup not in page, markup
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    bars = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    assert set(bars) <= {3, 4, 5, 6, 8, 9}  # no cell ends early: as many bars as a table has columns
    assert page.count("&#60;script>") > 10
    assert re.findall(r"^\| m .*$", page, re.MULTILINE)


def test_metadata_of_another_kind_leaves_gaps(folder: Path, contract: Contract) -> None:
    of_another_kind: list[Any] = [[], 3, {"tiny": 7}, {"tiny": {"job": [1], "commit": None}}]
    for members in of_another_kind:
        write_onnx(folder / "tiny.onnx", contract, members)
        assert "tiny: not stated" in page_of(folder)


def test_a_file_that_promises_nothing_is_an_error(folder: Path) -> None:
    model = onnx.load(folder / "tiny.onnx")
    del model.metadata_props[:]
    onnx.save(model, folder / "tiny.onnx")
    with pytest.raises(UserError, match=r"tiny\.onnx: no 'birdkit.contract'"):
        model_card.write(folder, "a machine")
