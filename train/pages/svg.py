"""Charts as SVG inside a page: small, in the page's colours, and readable by its script.

Colours are classes of the page's style sheet, so that a chart follows the theme. Text from data is
escaped by ElementTree. What has `data-tip` shows it beside the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

SERIES = 8  # colours of the style sheet, after which they begin again
WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 12, 44  # margins of a chart around its axes, in pixels

LINE, NAMES = 20, 150  # of a bar and of the names before bars, in pixels

Point = tuple[float, float]


def add(
    parent: ElementTree.Element, tag: str, text: str = "", /, **attributes: object
) -> ElementTree.Element:
    """A child element; `class_` is the attribute class, and an underscore stands for a hyphen."""
    named = {key.rstrip("_").replace("_", "-"): _shown(value) for key, value in attributes.items()}
    element = ElementTree.SubElement(parent, tag, named)
    element.text = text or None
    return element


def picture(width: float, height: float, label: str, class_: str) -> ElementTree.Element:
    """An empty picture that scales with its place; the text of a "chart" grows on a phone."""
    size = f"0 0 {width:g} {height:g}"
    named = {"viewBox": size, "role": "img", "aria-label": label, "class": class_}
    return ElementTree.Element("svg", named)


def markup(element: ElementTree.Element) -> Markup:
    """A finished picture as it stands in a template."""
    return Markup(ElementTree.tostring(element, encoding="unicode"))


def _shown(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Axis:
    """A range of values; of a logarithmic one they are above 0."""

    title: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1."""
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return (at - low) / ((high - low) or 1.0)

    def ticks(self) -> list[float]:
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            every = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
        else:
            every = list(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(self.low, self.high))
        slack = 1e-9 * (self.high - self.low)
        return [tick for tick in every if self.low - slack <= tick <= self.high + slack]


class Chart:
    """A chart with two axes, to which lines and dots are added."""

    def __init__(self, label: str, x: Axis, y: Axis) -> None:
        self.x, self.y = x, y
        self.svg = picture(WIDTH, HEIGHT, label, "chart")
        self._frame()

    def place(self, point: Point) -> Point:
        """Values → pixels."""
        across, up = self.x.share(point[0]), self.y.share(point[1])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def line(self, points: Sequence[Point], class_: str) -> None:
        if points:
            shown = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self.place, points))
            add(self.svg, "polyline", points=shown, class_=f"line {class_}")

    def dot(self, point: Point, class_: str, tip: str, radius: float = 4.0, **data: object) -> None:
        x, y = self.place(point)
        add(self.svg, "circle", cx=x, cy=y, r=radius, class_=f"dot {class_}", data_tip=tip, **data)

    def mark(self, x: float, text: str) -> None:
        """A line from bottom to top, with its meaning."""
        (at, bottom), (_, top) = self.place((x, self.y.low)), self.place((x, self.y.high))
        add(self.svg, "line", x1=at, x2=at, y1=bottom, y2=top, class_="grid strong")
        add(self.svg, "text", text, x=at + 5, y=top + 12, class_="tick")

    def markup(self) -> Markup:
        return markup(self.svg)

    def _frame(self) -> None:
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        for tick in self.y.ticks():
            _, y = self.place((self.x.low, tick))
            add(self.svg, "line", x1=LEFT, x2=right, y1=y, y2=y, class_="grid")
            add(self.svg, "text", f"{tick:g}", x=LEFT - 8, y=y + 4, class_="tick end")
        for tick in self.x.ticks():
            x, _ = self.place((tick, self.y.low))
            add(self.svg, "line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="grid strong")
            add(self.svg, "text", f"{tick:g}", x=x, y=bottom + 17, class_="tick mid")
        add(self.svg, "line", x1=LEFT, x2=right, y1=bottom, y2=bottom, class_="grid strong")
        middle = (LEFT + right) / 2, (TOP + bottom) / 2
        add(self.svg, "text", self.x.title, x=middle[0], y=HEIGHT - 6, class_="name mid")
        turned = f"rotate(-90 12 {middle[1]:g})"
        add(self.svg, "text", self.y.title, x=12, y=middle[1], transform=turned, class_="name mid")


@dataclass(frozen=True)
class Bar:
    """A bar of a value, with the text behind it and what its tip adds to name and text."""

    name: str
    value: float
    text: str
    tip: str


def bars(label: str, entries: Sequence[Bar]) -> Markup:
    """Horizontal bars, as long as their values, which are 0 or more."""
    most = max([1e-12, *(entry.value for entry in entries)])
    drawing = picture(WIDTH, LINE * len(entries) + 4, label, "bars")
    for row, entry in enumerate(entries):
        y, length = LINE * row + 2, (WIDTH - NAMES - 110) * entry.value / most
        group = add(drawing, "g", data_tip=f"{entry.name}: {entry.text}, {entry.tip}")
        shown = entry.name if len(entry.name) <= 20 else f"{entry.name[:19]}…"
        add(group, "text", shown, x=NAMES - 8, y=y + 14, class_="tick end")
        size = {"width": max(1.0, length), "height": LINE - 6}
        add(group, "rect", x=NAMES, y=y + 3, **size, rx=3, class_="bar")
        add(group, "text", entry.text, x=NAMES + length + 6, y=y + 14, class_="tick")
    return markup(drawing)


def colour(index: int) -> str:
    """The class of a series' colour."""
    return f"s{index % SERIES}"
