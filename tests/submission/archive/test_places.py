"""Folders and object stores hold recordings and tables alike."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from birdkit.archive import places
from birdkit.errors import UserError
from tests.conftest import write_sound

fsspec = pytest.importorskip("fsspec", reason="fsspec of requirements-scale.txt is not installed")


@pytest.fixture
def store(tmp_path: Path) -> str:
    """An object store in memory, with two recordings and a text."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    sound = write_sound(tmp_path / "a.wav", 6.0, rate=8000).read_bytes()
    for name in ("2025/a.wav", "2025/deep/b.WAV", "2025/readme.txt"):
        memory.pipe_file(f"/bucket/{name}", sound)
    return "memory://bucket/2025"


def test_recordings_of_a_store_have_names_below_its_address(store: str, tmp_path: Path) -> None:
    items, faults = places.find([store], "out")
    assert [item.name for item in items] == ["a.wav", "deep/b.WAV"]
    assert faults == {}
    assert all(item.size > 90_000 for item in items)
    copy = places.fetch(items[1], tmp_path / "scratch")
    assert copy == tmp_path / "scratch" / "deep" / "b.WAV"
    assert copy.read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_an_object_that_has_gone_is_an_error_of_the_system(store: str, tmp_path: Path) -> None:
    (item, _), _ = places.find([store], "out")
    fsspec.filesystem("memory").rm("/bucket/2025/a.wav")
    with pytest.raises(OSError, match="can't be read from its store"):
        places.fetch(item, tmp_path)


@pytest.mark.parametrize("kind", ["folder", "store"])
def test_what_is_written_is_read_listed_and_removed(kind: str, store: str, tmp_path: Path) -> None:
    place = places.place(str(tmp_path) if kind == "folder" else "memory://bucket/out")
    assert place.read("windows/a") is None
    assert place.names("windows") == set()
    place.write("windows/a", b"one")
    place.write("windows/a", b"two")
    again = pickle.loads(pickle.dumps(place))  # as it goes to a worker
    assert again.read("windows/a") == b"two"
    assert again.names("windows") == {"a"}
    place.remove("windows/a")
    place.remove("windows/a")
    assert place.read("windows/a") is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["memory://nothing"], "memory://nothing: nothing there"),
        (["memory://bucket/2025", "."], "and not both in one call"),
        (["steam://bucket"], "steam://bucket: "),
    ],
)
def test_a_wrong_address_is_a_mistake_of_the_user(store: str, given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        places.find(given, "out")
