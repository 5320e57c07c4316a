"""Sweeps: what they refuse, which trainings they start, how they end, and what they say of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from birdkit.errors import UserError
from tests.conftest import ROOT, TINY
from train import sweep as command
from train.experiments import sweep as sweeps

TWO = '[[variants]]\nname = "plain"\n[[variants]]\nname = "other"\nset = ["fit.lr=0.01"]\n'
# Stands for train/run.py: what it is given goes to a file, and it ends as its recipe says.
FAKE = """
import pathlib, sys, time
arguments = sys.argv[1:]
out = pathlib.Path(arguments[arguments.index("--out") + 1])
out.mkdir(exist_ok=True)
if (out / "recipe.json").exists():
    print("done already")
    sys.exit(2 if (out.parent / "changed").exists() else 0)
with (out / "starts").open("a") as starts:
    print(*arguments, file=starts)
print("the last word")
if "fit.lr=0.01" in arguments and (out.parent / "fail").exists():
    sys.exit(2)
time.sleep(600 if (out.parent / "hang").exists() else 0)
(out / "recipe.json").write_text("{}")
"""


def write(folder: Path, variants: str = TWO, seeds: str = "[0, 1]", data: str = '["data"]') -> Path:
    path = folder / "losses.toml"
    path.write_text(
        f'recipe = "demo"\ndata = {data}\nseeds = {seeds}\nset = ["fit.epochs=2"]\n{variants}'
    )
    return path


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep whose trainings are `FAKE`; its folder."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(sweeps, "RUN", script)
    monkeypatch.setattr(command, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(sweeps.Table, "markdown", lambda self: "a table")
    return tmp_path / "out"


def sweep(path: Path, out: Path, *arguments: str) -> int:
    return command.main([str(path), "--out", str(out), "--device", "cpu", *arguments])


@pytest.mark.parametrize(
    ("variants", "seeds", "data", "said"),
    [
        ('[[variants]]\nname = "plain"', "[0]", '["d"]', "at least two"),
        (TWO, "[]", '["d"]', "needs data, seeds"),
        (TWO, "[0]", "[]", "needs data, seeds"),
        (TWO, "[-1]", '["d"]', "seeds"),
        (TWO, "[1, 1]", '["d"]', "each may be there once"),
        (
            TWO + '[[variants]]\nname = "other"',
            "[0]",
            '["d"]',
            "variant 'other': needs a name of its own",
        ),
        (TWO + '[[variants]]\nname = "../x"', "[0]", '["d"]', "variant '../x'"),
        (
            TWO + '[[variants]]\nname = "x"\nset = ["fit.epoch=3"]',
            "[0]",
            '["d"]',
            "variant 'x': .*did you mean 'epochs'",
        ),
        (TWO + '[[variants]]\nname = "x"\nsets = []', "[0]", '["d"]', "did you mean 'set'"),
        (TWO + "[[variants", "[0]", '["d"]', "losses.toml: "),
    ],
)
def test_a_sweep_that_can_t_be_is_refused_before_anything_trains(
    variants: str, seeds: str, data: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        sweep(write(tmp_path, variants, seeds, data), tmp_path / "out")
    with pytest.raises(UserError, match="nothing there"):
        sweep(tmp_path / "nothing there", tmp_path / "out")
    good, page = write(tmp_path), tmp_path / "page.md"
    page.write_text("no marks")
    with pytest.raises(UserError, match="give the folder with --validation"):
        sweep(good, tmp_path / "out", "--score", "validation")
    with pytest.raises(UserError, match="needs a line <!-- sweep losses -->"):
        sweep(good, tmp_path / "out", "--into", str(page))
    assert not (tmp_path / "out").exists()


def test_each_variant_trains_with_each_seed_and_what_is_finished_is_left(
    tmp_path: Path, fake: Path
) -> None:
    path = write(tmp_path)
    assert sweep(path, fake, "--jobs", "2") == 0
    starts = {folder.name: (folder / "starts").read_text().split() for folder in fake.glob("*-?")}
    assert sorted(starts) == ["other-0", "other-1", "plain-0", "plain-1"]
    given = " ".join(starts["other-1"])
    assert given.startswith(f"--recipe demo --out {fake / 'other-1'} --data data --set fit.epochs=2")
    assert given.endswith("--set fit.lr=0.01 --set fit.seed=1 --device cpu")
    assert sweep(write(tmp_path, seeds="[0, 1, 2]"), fake) == 0
    assert all(len((folder / "starts").read_text().splitlines()) == 1 for folder in fake.glob("*-?"))
    assert len(list(fake.glob("*-?"))) == 6
    assert set(json.loads((fake / "times.json").read_text())) == {f.name for f in fake.glob("*-?")}


def test_a_training_that_fails_is_named_and_ends_no_other(
    tmp_path: Path, fake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.mkdir()
    (fake / "fail").touch()
    assert sweep(write(tmp_path), fake, "--jobs", "1") == 1
    assert [(fake / f"plain-{seed}" / "recipe.json").is_file() for seed in (0, 1)] == [True, True]
    said = capsys.readouterr()
    assert "a table" in said.out
    assert f"failed: other-1: the last word ({fake / 'other-1.log'})" in said.err
    (fake / "fail").unlink()
    assert sweep(write(tmp_path), fake, "--jobs", "1") == 0
    (fake / "changed").touch()  # the settings of what is finished
    assert sweep(write(tmp_path), fake, "--jobs", "1") == 1
    assert capsys.readouterr().err.count("failed: ") == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_leaves_no_training_behind(number: int, tmp_path: Path) -> None:
    script, out = tmp_path / "fake.py", tmp_path / "out"
    script.write_text(FAKE)
    out.mkdir()
    (out / "hang").touch()
    code = (
        "import pathlib, signal; from train import sweep; from train.experiments import sweep as s; "
        # A shell's background job ignores it, and so would all that it starts.
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"s.RUN = pathlib.Path({str(script)!r}); sweep.run_command(sweep.main)"
    )
    command_line = [
        sys.executable,
        "-c",
        code,
        str(write(tmp_path)),
        "--out",
        str(out),
        "--jobs",
        "2",
        "--device",
        "cpu",
    ]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'submission'}"}
    running = subprocess.Popen(command_line, env=environment, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if len(list(out.glob("*/starts"))) == 2:
            break
        time.sleep(0.1)
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said == "interrupted; run the same command again to go on\n"
    assert subprocess.run(["pgrep", "-f", str(script)], check=False, capture_output=True).stdout == b""


def test_the_table_has_seeds_of_which_both_are_there_and_says_what_can_be_told(
    run_dir: Path, tmp_path: Path
) -> None:
    path, out = write(tmp_path, seeds="[0, 1, 2]"), tmp_path / "out"
    out.mkdir()
    table = sweeps.Table(sweeps.read(path), out, "soundscapes")
    assert "| other | | | | | not finished | |" in table.markdown()
    for name in ("plain-0", "other-0", "plain-1"):
        shutil.copytree(run_dir, out / name)
    for name, minutes in (("plain-0", 12.0), ("plain-1", 30.0), ("other-0", 4.0)):
        table.took(sweeps.Training("", 0, out / name, ()), minutes)
    again = sweeps.Table(table.sweep, out, "soundscapes").markdown().splitlines()
    (out / "times.json").write_text('{"plain')  # cut off
    failed = sweeps.Table(table.sweep, out, "soundscapes", failed={"other-0"}).markdown()
    assert "| other | | | | | not finished | |" in failed
    plain, other = again[2:4], again[4:]
    assert [row.split(" | ")[1] for row in other] == ["clipwise", "segmentwise"]
    assert all(row.startswith("| plain | ") and row.endswith("| compared with | 21 |") for row in plain)
    for row in other:
        assert row.split(" | ")[3:] == [
            "+0.000", "+0.0000 [90 % +0.0000 … +0.0000]", "can't tell (detectable: 0.000)", "4 |"
        ]  # fmt: skip


@pytest.mark.slow
def test_a_real_sweep_ends_with_its_table_between_the_marks_of_a_page(
    competition: Path, tmp_path: Path
) -> None:
    settings = json.dumps([*TINY, "rounds=[{}]"])
    path = tmp_path / "tiny.toml"
    path.write_text(
        f'recipe = "demo"\ndata = ["{competition}"]\nseeds = [3]\nset = {settings}\n'
        '[[variants]]\nname = "plain"\n[[variants]]\nname = "focal"\nset = ["fit.loss=\'focal\'"]\n'
    )
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- sweep tiny -->\n<!-- /sweep tiny -->\nafter\n")
    assert sweep(path, tmp_path / "out", "--into", str(page)) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| focal | clipwise |" in text
    assert "| focal | segmentwise |" in text
