"""Puts recordings, a model's scores of them and their sound into one page."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdkit.audio import AudioError
from birdkit.errors import UserError
from train.data.progress import in_threads
from train.pages import page
from train.pages.review.clips import Clip, all_clips, choose, highest_first, peaks, spread
from train.pages.review.media import FLOOR_DB, Media, colour_maps, cut, media
from train.pages.review.recordings import Known, Recordings

TEMPLATE = "review.html.j2"
MOST = 32  # clips of a page, whose sound takes 0.8 MB each
# Seconds that are shown and heard before and after the windows of a clip that is a part of a recording.
CONTEXT_S = 2.5


@dataclass(frozen=True)
class Choice:
    """Which clips of many a page shows."""

    most: int = MOST
    species: tuple[str, ...] = ()  # the classes that they are chosen for; all where none is named
    spread: bool = False  # over the whole range of each class, or else from the highest scores down

    def clips(self, recordings: Recordings) -> tuple[list[Clip], str]:
        """The clips, and a sentence that says which of how many these are, and why."""
        classes = recordings.contract.classes
        columns = [classes.index(name) for name in self.species or classes]
        every = all_clips(recordings.scores)
        of_clips = peaks(every, recordings.scores)[:, columns]
        order = spread if self.spread else highest_first
        chosen = [every[number] for number in choose(of_clips, self.most, order)]
        return chosen, self._reason(chosen, every, recordings)

    def _reason(self, chosen: Sequence[Clip], every: Sequence[Clip], recordings: Recordings) -> str:
        n_scored = len({clip.recording for clip in every})
        what = "1 recording" if n_scored == 1 else f"{n_scored} recordings"
        if len(every) > n_scored:
            what = f"{len(every)} clips, of a minute or less, of {what}"
        if len(chosen) == len(every):
            return f"All {what}." if len(every) > 1 else f"{what}."
        how = "its scores spread over their whole range" if self.spread else "the highest scores first"
        classes = "each class" if len(self.species) != 1 else self.species[0]
        turn = "" if len(self.species) == 1 else " in turn"
        return f"{len(chosen)} of {what}: chosen for {classes}{turn}, {how}."


def write(out: Path, recordings: Recordings, model: str, choice: Choice) -> str:
    """Write the page; returns the sentence that says which clips it shows.

    Raises `UserError` where no clip can be shown.
    """
    clips, reason = choice.clips(recordings)
    shown, faults = _media(recordings, clips)
    if not shown:
        raise UserError(f"no recording can be shown ({next(iter(faults.values()))})")
    clips = [clip for clip in clips if clip in shown]
    failures = recordings.failures | faults
    data = {
        "model": model,
        "page": _page_name(model, recordings, clips),
        "classes": recordings.contract.classes,
        "commonNames": {c: n for c, n in recordings.common_names.items() if n and n != c},
        "windowS": recordings.contract.window_s,
        "floorDb": FLOOR_DB,
        "khz": recordings.contract.sample_rate / 2000,
        "colours": colour_maps(),
        "species": choice.species,
        "spread": choice.spread,
        "clips": [_clip(recordings, clip, shown[clip]) for clip in clips],
    }
    parts = [(shown[clip].picture, shown[clip].sound) for clip in clips]
    n_recordings = len({clip.recording for clip in clips})
    title = f"Review of {n_recordings} recording{'s' if n_recordings > 1 else ''}"
    page.write(
        out,
        TEMPLATE,
        title=title,
        data=data,
        media=parts,
        reason=reason,
        chosen=len(clips) < len(all_clips(recordings.scores)),
        failures=failures,
        ambiguous=recordings.ambiguous,
    )
    return reason


def _page_name(model: str, recordings: Recordings, clips: Sequence[Clip]) -> str:
    """The name under which a browser keeps the marks of this page."""
    # With sizes, for recorders give files of two sites the same names.
    sizes = {clip.recording: recordings.paths[clip.recording].stat().st_size for clip in clips}
    shown = [(recordings.names[c.recording], sizes[c.recording], c.first) for c in clips]
    return f"{model}-{hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:12]}"


def _span_s(clip: Clip, recordings: Recordings) -> tuple[float, float]:
    """Start and end of what is shown of a recording."""
    window_s = recordings.contract.window_s
    rows = recordings.scores[clip.recording]
    assert rows is not None, "a clip is of a recording with scores"
    start, end = clip.first * window_s, (clip.first + clip.count) * window_s
    before = CONTEXT_S if clip.first else 0.0
    after = CONTEXT_S if clip.first + clip.count < len(rows) else 0.0
    return start - before, end + after


def _media(recordings: Recordings, clips: Sequence[Clip]) -> tuple[dict[Clip, Media], dict[str, str]]:
    """Sound and spectrogram of the clips, and why some have none: recording → reason."""
    rate = recordings.contract.sample_rate

    def of_recording(number: int) -> dict[Clip, Media] | str:
        own = [clip for clip in clips if clip.recording == number]
        try:
            spans = [_span_s(clip, recordings) for clip in own]
            pieces = cut(recordings.paths[number], rate, spans)
        except AudioError as error:  # it was changed or removed since it was scored
            return str(error)
        return {clip: media(piece, rate) for clip, piece in zip(own, pieces, strict=True)}

    numbers = list(dict.fromkeys(clip.recording for clip in clips))
    results = in_threads(of_recording, numbers, "spectrograms")
    made: dict[Clip, Media] = {}
    faults: dict[str, str] = {}
    for number, result in zip(numbers, results, strict=True):
        if isinstance(result, str):
            faults[recordings.names[number]] = result
        else:
            made |= result
    return made, faults


def _clip(recordings: Recordings, clip: Clip, shown: Media) -> dict[str, Any]:
    """What the page's script knows of a clip; its arrays (windows, classes) are base64."""
    rows = recordings.scores[clip.recording]
    assert rows is not None, "a clip is of a recording with scores"
    part = slice(clip.first, clip.first + clip.count)
    start_s, end_s = _span_s(clip, recordings)
    known = recordings.known.get(clip.recording)
    pseudo = recordings.pseudo.get(clip.recording)
    return {
        "recording": recordings.names[clip.recording],
        "startS": start_s,
        "endS": end_s,
        "first": clip.first,
        "count": clip.count,
        "of": len(rows),
        "scores": _encoded(rows[part].astype("<f4")),
        "truth": None if known is None else _encoded(_truth(known, part, rows.shape[1])),
        "pseudo": None if pseudo is None else _encoded(_padded(pseudo[part], clip.count).astype("<f4")),
        "gainDb": shown.gain_db,
        "shownDb": shown.shown_db,
    }


def _truth(known: Known, part: slice, n_classes: int) -> NDArray[np.uint8]:
    """(windows, classes): 0 absent, 1 present, 2 not known."""
    cells = np.full((part.stop - part.start, n_classes), 2, dtype=np.uint8)
    present, decided = known.present[part], known.decided[part]
    cells[: len(present)] = np.where(decided, present, 2)
    return cells


def _padded(rows: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(count, classes), with NaN for windows that have none."""
    padding = np.full((count - len(rows), rows.shape[1]), np.nan, dtype=np.float32)
    return np.concatenate([rows, padding])


def _encoded(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
