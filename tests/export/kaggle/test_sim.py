"""Kaggle on this machine: its folders, its bad recordings, and a verdict that no fault passes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from birdkit import audio
from birdkit.errors import UserError
from birdkit.grid import row_ids
from birdkit.kaggle import manifest, mounts
from export import kaggle_sim
from export.kaggle.sim import bad_files, folders, pythons, session, verdict
from export.kaggle.sim.bad_files import BAD_FILES
from export.kaggle.sim.folders import LAYOUTS, Bundle, Hidden
from export.kaggle.sim.place import Place
from export.kaggle.sim.verdict import Left, Line
from tests.conftest import ROOT, write_sound
from tests.export.kaggle.fake_kit import PINS, WHEELS, make_bundle

COLUMNS = ["wren1", "1234"]
ROOT_READS_ALL = os.geteuid() == 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for k in range(3):
        write_sound(folder / "train_soundscapes" / f"S0{k}_20250501_040000.ogg", 60.0)
    sample = pd.DataFrame([("soundscape_1_5", 0.5, 0.5)], columns=["row_id", *COLUMNS])
    sample.to_csv(folder / "sample_submission.csv", index=False)
    (folder / "taxonomy.csv").write_text("primary_label\nwren1\n1234\n")
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Any:
    folder = make_bundle(tmp_path / "made")
    shutil.copy(ROOT / "submission" / "notebook.ipynb", folder / "kernel" / "notebook.ipynb")
    return Bundle.read(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_kit_and_notebook_find_competition_and_dataset_in_both_layouts(
    layout: Any, bundle: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = folders.build(tmp_path / "work", layout, bundle, data)
    assert mounts.find_competition(tree.root / "input") == tree.competition
    monkeypatch.setenv("BIRDKIT_KAGGLE_ROOT", str(tree.root))
    cells = json.loads(bundle.notebook.read_text())["cells"]
    (finding,) = ["".join(c["source"]) for c in cells if manifest.NAME in "".join(c["source"])]
    names: dict[str, Any] = {}
    exec(finding, names)
    assert names["kits"] == [tree.dataset]


def test_the_tree_is_as_mounted_without_test_files_and_with_the_dataset_as_bundled(
    bundle: Any, data: Path, tmp_path: Path
) -> None:
    tree = folders.build(tmp_path / "work", "nested", bundle, data)
    assert mounts.soundscapes(tree.competition / "test_soundscapes") == []
    assert len(mounts.soundscapes(tree.competition / "train_soundscapes")) == 3
    assert manifest.problems(tree.dataset) == []
    assert not (tree.dataset / "dataset-metadata.json").exists()
    assert list(tree.submission.parent.iterdir()) == []
    folders.take_out(tree, "openvino")
    left = [path.name for path in (tree.dataset / "wheels").iterdir()]
    assert sorted(left) == [name for name in WHEELS if name.startswith("onnxruntime")]


def test_each_of_twenty_bad_files_is_as_unreadable_as_it_says(
    bundle: Any, data: Path, tmp_path: Path
) -> None:
    tree = folders.build(tmp_path / "work", "flat", bundle, data)
    hidden = folders.add_test_soundscapes(tree, data, 40)
    folder = tree.competition / "test_soundscapes"
    assert sorted(hidden.bad_files.values()) == sorted(BAD_FILES)
    assert len(BAD_FILES) == 20
    assert [path.stem for path in mounts.soundscapes(folder)] == sorted(hidden.stems)
    bad = set()
    for path in mounts.soundscapes(folder):
        try:
            sound = audio.read(path, 32_000)
            assert np.isfinite(sound).all()
        except audio.AudioError:
            bad.add(path.name)
    expected = {name for name, kind in hidden.bad_files.items() if BAD_FILES[kind].unreadable}
    depends = {name for name, kind in hidden.bad_files.items() if BAD_FILES[kind].unreadable is None}
    assert bad == expected | (set() if ROOT_READS_ALL else depends)


def test_too_few_files_for_the_bad_files_are_refused() -> None:
    with pytest.raises(UserError, match="--files 39"):
        kaggle_sim.parse(["--files", "39"])


def table_of(stems: Sequence[str]) -> Any:
    ids = [row for stem in stems for row in row_ids(stem, 12, 5.0)]
    values = np.random.default_rng(0).random((len(ids), 2))
    table = pd.DataFrame(values, columns=COLUMNS)
    table.insert(0, "row_id", ids)
    return table


def write_left(folder: Path, table: pd.DataFrame, **report: Any) -> Left:
    """A table and its report as `birdkit.outcome` leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "submission.csv"
    table.to_csv(out, index=False)
    facts = {
        "passes": ["plain"],
        "engines": ["openvino (m.xml, f32)"],
        "scored": len(table) // 12,
        "failures": {},
        "notes": [],
        "csv_sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
    }
    out.with_name(out.name + ".report.json").write_text(json.dumps(facts | report))
    return Left.read(out)


def judged(left: Left, hidden: Hidden) -> str:
    line = Line("3.12", "flat", "scoring rerun")
    line.judge(left, hidden, COLUMNS, "openvino")
    return line.verdict


def test_a_complete_table_with_its_bad_files_named_passes_in_any_order_of_rows(tmp_path: Path) -> None:
    table = table_of(["a", "b"]).iloc[::-1]
    left = write_left(tmp_path, table, scored=1, failures={"b.ogg": "can't be decoded"})
    assert judged(left, Hidden(["a", "b"], {"b.ogg": "empty"})) == "passes"


def change(column: str, value: object) -> Any:
    return lambda table: table.assign(**{column: value})


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda table: table.iloc[1:], "1 rows are missing or too many, such as a_5"),
        (lambda table: table_of(["a", "b", "c"]), "12 rows are missing or too many"),
        (lambda table: pd.concat([table, table.head(1)]), "each once"),
        (lambda table: table[["row_id", *COLUMNS[::-1]]], "columns differ"),
        (change("wren1", np.nan), "NaN"),
        (change("wren1", "loud"), "not numeric"),
        (lambda table: table.assign(wren1=0.5, **{"1234": 0.5}), "nothing was scored"),
    ],
)
def test_a_spoilt_table_fails(spoil: Any, said: str, tmp_path: Path) -> None:
    left = write_left(tmp_path, spoil(table_of(["a", "b"])), scored=2)
    assert said in judged(left, Hidden(["a", "b"], {}))


@pytest.mark.parametrize(
    "report, bad_files, message",
    [
        ({}, {"b.ogg": "empty"}, "b.ogg (empty) is not named as bad"),
        ({"failures": {"a.ogg": "why"}, "scored": 1}, {}, "a.ogg (healthy) was not scored: why"),
        ({"failures": {"b.ogg": "why"}, "scored": 1}, {"b.ogg": "stereo"}, "(stereo) was not scored"),
        ({"scored": 1}, {}, "1 of 2 files scored, 0 bad"),
        ({"engines": ["onnxruntime (m.onnx, f32)"]}, {}, "answered, not openvino"),
        ({"engines": []}, {}, "nothing answered"),
        ({"csv_sha256": "0"}, {}, "the report is of another table"),
    ],
)
def test_a_report_that_is_not_the_truth_fails(
    report: Any, bad_files: dict[str, str], message: str, tmp_path: Path
) -> None:
    left = write_left(tmp_path, table_of(["a", "b"]), **report)
    assert message in judged(left, Hidden(["a", "b"], bad_files))


@pytest.mark.parametrize("named", [True, False])
def test_a_file_without_permission_may_be_scored_or_named(named: bool, tmp_path: Path) -> None:
    report = {"scored": 1, "failures": {"b.ogg": "no permission"}} if named else {}
    left = write_left(tmp_path, table_of(["a", "b"]), **report)
    assert judged(left, Hidden(["a", "b"], {"b.ogg": "no permission"})) == "passes"


def test_litert_may_answer_beside_an_engine_and_not_in_its_place(tmp_path: Path) -> None:
    of_member, hidden = "litert (bird.tflite, f32)", Hidden(["a", "b"], {})
    beside = write_left(
        tmp_path / "one", table_of(["a", "b"]), engines=[of_member, "openvino (m.xml, f32)"]
    )
    assert judged(beside, hidden) == "passes"
    alone = write_left(tmp_path / "two", table_of(["a", "b"]), engines=[of_member])
    assert "nothing answered, not openvino" in judged(alone, hidden)


def test_a_missing_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"submission\.csv or its report can't be read"):
        Left.read(tmp_path / "submission.csv")


def test_engines_may_differ_by_1e_4_whatever_the_order_of_their_rows(tmp_path: Path) -> None:
    table = table_of(["a", "b"])
    one = write_left(tmp_path / "one", table)
    near = write_left(tmp_path / "near", change("wren1", table.wren1 + 0.9e-4)(table).iloc[::-1])
    far = write_left(tmp_path / "far", change("wren1", table.wren1 + 1.1e-4)(table))
    assert verdict.difference(one, near) == []
    assert verdict.difference(one, far) == ["differs by 0.00011 from the other engine"]
    other = write_left(tmp_path / "other", table, passes=["plain", "shift 0.5"])
    assert "not comparable" in verdict.difference(one, other)[0]
    assert verdict.difference(one, None) != []


def test_a_report_must_say_that_an_engine_is_missing(tmp_path: Path) -> None:
    table = table_of(["a"])
    assert verdict.silence(write_left(tmp_path, table), "openvino") != []
    assert verdict.silence(write_left(tmp_path, table, notes=["openvino: no wheel"]), "openvino") == []


def install(
    folder: Path, tag: str = "cp312-cp312-manylinux_2_28_x86_64", engine: str = "openvino"
) -> Path:
    """A package as pip leaves it with --target."""
    (folder / engine).mkdir(parents=True)
    metadata = folder / f"{engine}-{PINS[engine]}.dist-info"
    metadata.mkdir()
    (metadata / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tag}\n")
    return folder / engine / "__init__.py"


def test_a_package_is_traced_to_the_wheel_it_was_installed_from(bundle: Any, tmp_path: Path) -> None:
    wheels = bundle.folder / "dataset" / "wheels"
    scratch = tmp_path / "tmp"
    wheel = verdict.wheel_of(install(scratch / "x"), wheels, scratch)
    assert wheel is not None
    assert wheel.name == "openvino-2026.4.1-21234-cp312-cp312-manylinux_2_28_x86_64.whl"
    assert verdict.wheel_of(install(tmp_path / "site-packages"), wheels, scratch) is None
    other = install(scratch / "y", "cp311-cp311-manylinux_2_28_x86_64")
    assert verdict.wheel_of(other, wheels, scratch) is None


def test_what_was_there_before_the_notebook_is_a_fault() -> None:
    clean: dict[str, list[str]] = {"engines": [], "answers": [], "writable": []}
    assert verdict.surroundings(clean) == ("no engine, no network, inputs read-only", [])
    _, found = verdict.surroundings(
        {"engines": ["openvino"], "answers": ["1.1.1.1:53"], "writable": ["/i"]}
    )
    assert [line.split()[0] for line in found] == ["openvino", "1.1.1.1:53", "/i"]
    assert verdict.surroundings({})[1] == ["the notebook's runner did not start"]


def test_a_line_of_the_table_is_one_line_with_its_columns() -> None:
    line = Line("3.12.1", "flat", "commit run", problems=["a | b\nc"])
    header, rule, row = verdict.markdown([line]).splitlines()
    assert header.count("|") == rule.count("|") == row.count("|")
    assert row.endswith("| FAILS: a / b c |")


def fake_python(path: Path, version: str | None) -> Path:
    """An interpreter that says its version, or one that refuses to run, as pyenv's shims can."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n" if version else "#!/bin/sh\nexit 127\n")
    path.chmod(0o755)
    return path


def test_an_interpreter_that_does_not_run_gives_way_to_pyenvs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = fake_python(tmp_path / "bin" / "python3.12", None)
    own = fake_python(tmp_path / "pyenv" / "versions" / "3.12.1" / "bin" / "python3.12", "3.12")
    monkeypatch.setenv("PATH", f"{shim.parent}:/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert pythons.interpreter("3.12") == own
    fake_python(shim, "3.12")
    assert pythons.interpreter("3.12") == shim


def test_a_missing_python_is_skipped_and_none_at_all_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "python3.12"
    monkeypatch.setattr(pythons, "interpreter", lambda version: base if version == "3.12" else None)
    monkeypatch.setattr(pythons, "environment", lambda folder, version, base: folder / "bin" / "python")
    found = pythons.interpreters(["3.12", "3.13"], tmp_path)
    assert found == {"3.12": tmp_path / "image-3.12" / "bin" / "python"}
    assert "skipped: no python3.13" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no python3\.13 runs here"):
        pythons.interpreters(["3.13"], tmp_path)


def test_neither_image_has_an_engine_and_every_package_of_it_is_pinned() -> None:
    for pins in (*pythons.PACKAGES.values(), pythons.JUPYTER):
        assert all("==" in pin for pin in pins)
        assert not {"onnxruntime", "openvino"} & {pin.partition("==")[0] for pin in pins}


def test_a_folder_with_other_things_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(UserError, match="holds other things"):
        folders.prepare(tmp_path)
    folders.prepare(tmp_path / "new")
    folders.prepare(tmp_path / "new")


def test_where_the_network_cannot_be_cut_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CUTS", (("no-such-command",), ("false",)))
    with pytest.raises(UserError, match="the network can't be cut here"):
        session.cut(tmp_path)


def test_the_cut_leaves_no_network_and_read_only_inputs(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    try:
        command = session.cut(tmp_path / "input")
    except UserError:
        pytest.skip("this machine allows no namespaces")
    connect = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)"
    with session.listener() as port:
        python = [sys.executable, "-c", connect, str(port)]
        assert subprocess.run(python).returncode == 0
        refused = subprocess.run([*command, *python], capture_output=True, text=True)
    assert "unreachable" in refused.stderr
    touch = subprocess.run([*command, "touch", str(tmp_path / "input" / "x")], capture_output=True)
    assert touch.returncode != 0


def test_a_session_inherits_nothing_of_the_callers_settings(
    bundle: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("PIP_FIND_LINKS", "/ours")
    tree = folders.build(tmp_path / "work", "flat", bundle, data)
    found = session.environment(tree, Path("/image/bin/python"))
    assert "/ours" not in str(found)
    assert all(str(tmp_path) in found[name] for name in ("HOME", "TMPDIR", "BIRDKIT_KAGGLE_ROOT"))


def test_options_are_put_before_the_notebooks_own(bundle: Any, data: Path, tmp_path: Path) -> None:
    tree = folders.build(tmp_path / "work", "flat", bundle, data)
    place = Place("3.12", Path("python"), "flat", tree, bundle.notebook)
    changed = json.loads(place.with_options("--precision", "f32").notebook.read_text())
    assert 'run.main(["--precision", "f32", "--out", ' in json.dumps(changed).replace("\\", "")
    assert len(changed["cells"]) == len(json.loads(bundle.notebook.read_text())["cells"])


@pytest.fixture
def simulate(bundle: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command with sessions that only write what a healthy kit would; its exit status."""
    sessions = []
    monkeypatch.setattr(bad_files, "MINUTE_S", 2.0)  # seconds of encoding otherwise

    def write(
        tree: Any, python: Any, notebook: Any, name: str, spoil: Any = lambda name, table: table
    ) -> Any:
        test = mounts.soundscapes(tree.competition / "test_soundscapes")
        train = mounts.soundscapes(tree.competition / "train_soundscapes")
        engine = "openvino" if list(tree.dataset.glob("wheels/openvino-*")) else "onnxruntime"
        bf16 = engine == "openvino" and "--precision" not in notebook.read_text()
        failures = {path.name: "bad" for path in test if not readable(path)}
        package = install(tree.scratch / f"{engine}-x", engine=engine)
        write_left(
            tree.submission.parent,
            spoil(name, table_of([path.stem for path in test or train])),
            scored=len(test or train) - len(failures),
            failures=failures,
            engines=[f"{engine} (m, {'bf16' if bf16 else 'f32'})"],
            origins=[str(package)],
            notes=[] if engine == "openvino" else ["openvino: no wheel"],
        )
        log = tree.folder / f"{name}.log"
        log.write_text("what it \x1b[31mprinted\x1b[39m\n")
        sessions.append(name)
        seen = {"python": "3.12.1", "engines": [], "answers": [], "writable": []}
        return session.Ended(0, 1.0, log, seen)

    def command(**spoil: Any) -> Any:
        monkeypatch.setattr(session, "run", lambda *given: write(*given, **spoil))
        monkeypatch.setattr(pythons, "interpreters", lambda versions, work: {"3.12": Path("python")})
        paths = ["--bundle", str(bundle.folder), "--data", str(data), "--work", str(tmp_path / "w")]
        status = kaggle_sim.main([*paths, "--layout", "nested", "--files", "40"])
        return status, sessions

    return command


def readable(path: Path) -> bool:
    try:
        audio.read(path, 32_000, max_s=1.0)
    except audio.AudioError:
        return False
    return True


def test_a_healthy_kit_passes_every_session_and_a_lower_precision_is_rerun_in_f32(
    simulate: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    status, sessions = simulate()
    out = capsys.readouterr().out
    assert status == 0, out
    assert sessions == ["commit-run", "scoring-rerun", "rerun-in-f32", "rerun-without-openvino"]
    assert sum(line.endswith("| passes |") for line in out.splitlines()) == 4


def test_one_failing_session_is_exit_status_1_and_its_last_lines_are_printed(
    simulate: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(name: str, table: pd.DataFrame) -> Any:
        return table.iloc[1:] if name == "scoring-rerun" else table

    status, _ = simulate(spoil=spoil)
    said = capsys.readouterr()
    assert status == 1
    assert said.out.count("| FAILS: ") == 1
    assert "what it printed" in said.err


def test_folders_of_recordings_alone_are_no_competition_to_simulate(tmp_path: Path) -> None:
    write_sound(tmp_path / "wren" / "a.wav", 1.0)
    with pytest.raises(UserError, match="simulate a scoring rerun with; give a competition folder"):
        folders.sources(tmp_path)
