"""An engine is imported from where it is installed, else from the wheel beside the kit, unpacked."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from birdkit.engines import wheels
from birdkit.engines.wheels import EngineMissing


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package counts as broken, and none stays imported or on the path."""
    monkeypatch.setattr(wheels, "_BROKEN", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("anengine", "json"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def vendor(folder: Path, code: str, tag: str = "py3-none-any", version: str = "1.0") -> Path:
    path = folder / f"anengine-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("anengine/__init__.py", code)
    return path


def test_an_installed_package_comes_first(tmp_path: Path) -> None:
    failed: list[str] = []
    assert wheels.obtain("json", tmp_path, failed).__name__ == "json"
    assert failed == []


def test_a_package_that_is_not_installed_is_unpacked_from_its_wheel(tmp_path: Path) -> None:
    vendor(tmp_path, "WORKS = True")
    failed: list[str] = []
    package = wheels.obtain("anengine", tmp_path, failed)
    assert package.WORKS
    assert "anengine-unpacked-" in str(package.__file__)
    assert failed == []  # the image lacks it, which is no fault


def test_an_installed_package_that_is_broken_is_replaced_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site" / "anengine").mkdir(parents=True)
    (tmp_path / "site" / "anengine" / "__init__.py").write_text("raise RuntimeError('broken')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    vendor(tmp_path, "WORKS = True")
    failed: list[str] = []
    assert wheels.obtain("anengine", tmp_path, failed).WORKS
    assert failed == ["anengine: RuntimeError: broken"]


def test_where_neither_works_both_reasons_are_given_and_the_next_call_does_not_unpack(
    tmp_path: Path,
) -> None:
    with pytest.raises(EngineMissing, match=r"not installed; unpacking FileNotFoundError: no wheel"):
        wheels.obtain("anengine", tmp_path)
    vendor(tmp_path, "WORKS = True")
    with pytest.raises(EngineMissing, match="not installed"):
        wheels.obtain("anengine", tmp_path)


@pytest.mark.parametrize("python", ["cp27", f"cp3{sys.version_info.minor + 1}", "cp3"])
def test_a_wheel_of_another_python_does_not_fit(tmp_path: Path, python: str) -> None:
    vendor(tmp_path, "", f"{python}-{python}-linux_x86_64")
    with pytest.raises(FileNotFoundError, match=rf"no wheel for cp3.*there: anengine-1\.0-{python}-"):
        wheels.vendored("anengine", tmp_path)


def test_of_several_wheels_that_fit_the_newest_is_taken(tmp_path: Path) -> None:
    tag = f"cp3{sys.version_info.minor}"
    for version in ("1.1", "1.0"):
        vendor(tmp_path, "", f"{tag}-{tag}-linux_x86_64", version)
    newest = vendor(tmp_path, "", version="1.2")
    assert wheels.vendored("anengine", tmp_path) == newest
