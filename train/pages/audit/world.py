"""A map of places, drawn without a network: land, a graticule and a dot for the recordings of a place.

The land is Natural Earth's at 1:110 million, which is in the public domain (land.json says more).
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from train.pages import svg

LAND = Path(__file__).parent / "land.json"
WIDTH = 720.0
FLATTEST, TALLEST = 0.35, 0.7  # height over width
LEAST_DEG = 4.0  # less would show a coast that is too coarse for it
CELL = 8.0  # pixels; what is nearer becomes one dot
STEPS_DEG = (1, 2, 5, 10, 15, 30)

Degrees = NDArray[np.float64]  # (recordings,)


@dataclass(frozen=True)
class Map:
    """The picture, the dot of each recording (-1: it has no place), and what each dot is."""

    picture: Markup
    dots: list[int]
    labels: list[str]


@dataclass(frozen=True)
class View:
    """The part of the world that is shown, in degrees: plate carrée, true to scale in its middle."""

    west: float
    south: float
    east: float
    north: float

    @property
    def height(self) -> float:
        return WIDTH * (self.north - self.south) / ((self.east - self.west) * self._squeeze)

    @property
    def _squeeze(self) -> float:
        return max(0.4, math.cos(math.radians((self.south + self.north) / 2)))

    @classmethod
    def around(cls, latitudes: Degrees, longitudes: Degrees) -> View:
        west, east = _widened(longitudes.min(), longitudes.max(), LEAST_DEG, 180.0)
        south, north = _widened(latitudes.min(), latitudes.max(), LEAST_DEG / 2, 90.0)
        view = cls(west, south, east, north)
        aspect = view.height / WIDTH
        if aspect > TALLEST:
            west, east = _widened(west, east, (east - west) * aspect / TALLEST, 180.0)
        elif aspect < FLATTEST:
            south, north = _widened(south, north, (north - south) * FLATTEST / aspect, 90.0)
        return cls(west, south, east, north)

    def place(self, longitude: Degrees, latitude: Degrees) -> tuple[Degrees, Degrees]:
        """Degrees → pixels."""
        x = (longitude - self.west) / (self.east - self.west) * WIDTH
        return x, (self.north - latitude) / (self.north - self.south) * self.height


def _widened(low: float, high: float, least: float, limit: float) -> tuple[float, float]:
    """A range with a margin, of at least so many degrees, within ±limit."""
    half = min(limit, max(0.55 * (high - low), least / 2))
    middle = float(np.clip((low + high) / 2, half - limit, limit - half))
    return middle - half, middle + half


def draw(latitudes: Degrees, longitudes: Degrees, classes: Sequence[str]) -> Map | None:
    """The map of recordings by place and class; None where none has a place. NaN is no place."""
    has_place = (np.abs(latitudes) <= 90) & (np.abs(longitudes) <= 180)
    if not has_place.any():
        return None
    view = View.around(latitudes[has_place], longitudes[has_place])
    picture = svg.picture(WIDTH, round(view.height, 1), "Map of the recordings", "map")
    _draw_world(picture, view)
    x, y = view.place(longitudes, latitudes)
    dots: dict[tuple[int, int], list[int]] = {}
    for row in np.flatnonzero(has_place):
        dots.setdefault((int(x[row] // CELL), int(y[row] // CELL)), []).append(int(row))
    ordered = sorted(dots.values(), key=len, reverse=True)  # the small ones on top
    of_row, labels = np.full(len(classes), -1), []
    for dot, rows in enumerate(ordered):
        place = (f"{np.mean(degrees[rows]):.2f}" for degrees in (latitudes, longitudes))
        count = f"{len(rows)} recording{'s' if len(rows) > 1 else ''}"
        names = {classes[row] for row in rows}
        of = f"{len(names)} classes" if len(names) > 1 else next(iter(names))
        labels.append(f"{', '.join(place).replace('-', '−')}: {count} of {of}")
        where = {"cx": float(x[rows].mean()), "cy": float(y[rows].mean())}
        radius = min(14.0, 3.0 + 1.2 * math.log(len(rows)))
        tip = {"data_tip": labels[dot], "data_only": f"place:{dot}"}
        svg.add(picture, "circle", **where, r=radius, class_="dot s1", **tip)
        of_row[rows] = dot
    return Map(svg.markup(picture), of_row.tolist(), labels)


def _draw_world(picture: ElementTree.Element, view: View) -> None:
    height = round(view.height, 1)
    clip = svg.add(svg.add(picture, "defs"), "clipPath", id="map-frame")
    svg.add(clip, "rect", width=WIDTH, height=height)
    svg.add(picture, "rect", width=WIDTH, height=height, class_="sea")
    world = svg.add(picture, "g", clip_path="url(#map-frame)")
    parts = []
    for ring in _land():
        x, y = view.place(ring[:, 0], ring[:, 1])
        if x.max() >= 0 and x.min() <= WIDTH and y.max() >= 0 and y.min() <= height:
            parts.append("M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True)) + "Z")
    svg.add(world, "path", d="".join(parts), class_="land")
    for longitude in _graticule(view.west, view.east):
        at = float(view.place(np.array(longitude), np.array(view.north))[0])
        svg.add(world, "line", x1=at, x2=at, y1=0, y2=height, class_="grid")
        svg.add(world, "text", _degrees(longitude, "EW"), x=at + 3, y=height - 5, class_="tick")
    for latitude in _graticule(view.south, view.north):
        at = float(view.place(np.array(view.west), np.array(latitude))[1])
        svg.add(world, "line", x1=0, x2=WIDTH, y1=at, y2=at, class_="grid")
        svg.add(world, "text", _degrees(latitude, "NS"), x=4, y=at - 3, class_="tick")


@functools.cache
def _land() -> list[NDArray[np.float64]]:
    """Rings of land, (points, longitude and latitude)."""
    rings = json.loads(LAND.read_text())["rings"]
    return [np.array(ring).reshape(-1, 2) for ring in rings]


def _graticule(low: float, high: float) -> NDArray[np.float64]:
    step = next((step for step in STEPS_DEG if (high - low) / step <= 8), STEPS_DEG[-1])
    return np.arange(math.ceil(low / step) * step, high, step, dtype=float)


def _degrees(value: float, sides: str) -> str:
    return "0°" if value == 0 else f"{abs(value):g}° {sides[int(value < 0)]}"
