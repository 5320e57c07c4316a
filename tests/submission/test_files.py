"""Files are replaced in one step, locks name their holder, and names stay in their folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdkit import files
from birdkit.errors import UserError, run_command
from tests.conftest import ROOT


def test_a_writer_that_dies_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    files.write_whole(path, b"old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_bytes(b"mine")
    for name in ("state.pt", "state.pt.partial"):
        (tmp_path / name).symlink_to(private)
    files.write_whole(tmp_path / "state.pt", b"new")
    assert private.read_bytes() == b"mine"
    assert (tmp_path / "state.pt").read_bytes() == b"new"
    assert not (tmp_path / "state.pt").is_symlink()


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "urandom", bytes)  # as if somebody had guessed the name
    (tmp_path / "mine").write_text("old")
    (tmp_path / f"table.{'00' * 8}.partial").symlink_to(tmp_path / "mine")
    with pytest.raises(FileExistsError):
        files.write_whole(tmp_path / "table", b"new")
    assert (tmp_path / "mine").read_text() == "old"


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with files.replacing(path) as first, files.replacing(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"  # the outer one ends last


def test_the_longest_name_that_a_file_can_have_can_be_written(tmp_path: Path) -> None:
    files.write_whole(tmp_path / ("ü" * 127), b"x")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_lock_names_its_holder_and_goes_with_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    code = (
        "import sys, time, pathlib; from birdkit.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "submission")}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    refusal = rf"x: process {holder.pid} on .*, since .* is writing there; wait until it has ended"
    with pytest.raises(UserError, match=refusal), files.locked(path):
        pass
    holder.kill()  # which leaves the lock's file
    holder.communicate()
    with files.locked(path):
        pass
    assert [p.name for p in tmp_path.rglob("*")] == (["x"] if kind == "folder" else [])


@given(
    st.text(max_size=8)
    | st.sampled_from(["..", "../../escape", "/etc/passwd", "a/b", "a\\b", ".x", ""])
)
def test_a_plain_name_is_that_of_a_file_in_its_folder(name: str) -> None:
    if files.is_plain(name):
        assert os.path.normpath(f"/folder/{name}") == f"/folder/{name}"
        assert "\\" not in name
    assert files.is_plain("tf_efficientnet_b0-2 (best)".replace("(best)", "b.1+2=3"))
    assert not files.is_plain("x" * 101)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.ENOTDIR])
def test_a_place_that_cannot_be_written_is_one_line_and_exit_status_2(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise OSError(number, os.strerror(number), "runs/demo")

    with pytest.raises(SystemExit) as left:
        run_command(main)
    assert left.value.code == 2
    remedy = "make room there, or name another place"
    assert capsys.readouterr().err == f"error: runs/demo: {os.strerror(number)}; {remedy}\n"
