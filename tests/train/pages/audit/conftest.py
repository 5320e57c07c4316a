"""A folder of recordings with one of each finding, as nasty as file systems allow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from numpy.typing import NDArray

from train.data.speech import SpeechDetector

RATE = 32_000
SCRIPT = "<script>alert(1)<b>"
ODD = 'Bäume "quoted" #1? 100%.wav'
SPOKEN_S = (1.5, 3.25)


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return (0.05 * generator.standard_normal(round(seconds * rate))).astype(np.float32)


@pytest.fixture(autouse=True)
def spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speech where a recording begins with its loudest sample, since there is no voice to commit."""

    def heard(_: object, waveform: NDArray[np.float32], __: int) -> tuple[tuple[float, float], ...]:
        return (SPOKEN_S,) if waveform.size and waveform[0] > 0.25 else ()

    monkeypatch.setattr(SpeechDetector, "__call__", heard)


def sounds() -> dict[str, tuple[NDArray[np.float32], int]]:
    """Samples and rate by class folder and name."""
    half = np.concatenate([noise(2, 1), np.zeros(2 * RATE, np.float32)])
    voice, loud = noise(4.5, 2), noise(2, 3)
    voice[0] = 0.5
    loud[640:1280] = 1.5  # 1 % of the samples
    stereo = np.stack([noise(2, 4, 44_100), noise(2, 5, 44_100)], axis=1)
    return {
        f"{SCRIPT}/same.wav": (noise(3, 9), RATE),
        "aves/same.wav": (0.5 * noise(3, 9), RATE),
        "aves/half.ogg": (half, RATE),
        "aves/voice.mp3": (voice, RATE),
        f"aves/{ODD}": (loud, RATE),
        "rana/stereo.flac": (stereo, 44_100),
        "rana/short.wav": (noise(0.2, 6), RATE),
        "rana/silent.wav": (np.zeros(RATE, np.float32), RATE),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with train.csv and taxonomy.csv."""
    root = tmp_path / "data"
    rows = []
    for name, (samples, rate) in sounds().items():
        path = root / "train_audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate)
        rows.append({"primary_label": name.split("/")[0], "filename": name})
    (root / "train_audio" / "rana" / "text.ogg").write_text("no sound")
    (root / "train_audio" / "rana" / "unlisted.wav").write_bytes(b"")
    rows += [{"primary_label": "rana", "filename": f"rana/{name}.ogg"} for name in ("text", "absent")]
    table = pd.DataFrame(rows).assign(
        secondary_labels="[]", license="CC BY", common_name="A <b>name</b>"
    )
    table["author"] = ["Ann", "Ann", "Bob", "Bob", 'O"Hara', "", "Bob", "Bob", "Bob", "Bob"]
    table["latitude"] = ["18.1", "18.1", "-33.9", "", "95", "18.1", "18.1", "nan", "0", "0"]
    table["longitude"] = ["-66.1", "-66.1", "151.2", "2", "0", "-66.1", "-66.1", "", "0", "0"]
    table.to_csv(root / "train.csv", index=False)
    groups = {SCRIPT: "Insecta", "aves": "Aves", "rana": "Amphibia", "never": "Aves"}
    taxonomy = pd.DataFrame({"primary_label": list(groups), "class_name": list(groups.values())})
    taxonomy.to_csv(root / "taxonomy.csv", index=False)
    return root
