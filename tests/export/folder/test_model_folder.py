"""What a model folder holds beside its models."""

from __future__ import annotations

from pathlib import Path

from birdkit.detections import species
from export.folder import model_folder


def test_names_of_the_data_reach_the_tables_of_detections(tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "model"
    data.mkdir()
    folder.mkdir()
    (data / "taxonomy.csv").write_text(
        "primary_label,scientific_name,common_name\n22,Rana clamata,Green Frog\nrobin,,Robin\n"
    )
    model_folder.write_names(folder, ("robin", "22", "unknown"), data)
    named = species.named(("robin", "22", "unknown"), None, folder)
    assert [(one.label, one.scientific, one.common) for one in named] == [
        ("robin", "", "Robin"),
        ("22", "Rana clamata", "Green Frog"),
        ("unknown", "", ""),
    ]


def test_data_without_names_leaves_no_table(tmp_path: Path) -> None:
    model_folder.write_names(tmp_path, ("robin",), tmp_path)
    assert list(tmp_path.iterdir()) == []
