"""The recipe as a picture: a column a round, its models with their macro-AUC, and who teaches whom."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from markupsafe import Markup

from train.pages import svg
from train.pages.report.run_folder import Model, Round, Run, View
from train.scoring.summary import ENSEMBLE

BOX, HEIGHT, GAP, BETWEEN = 240, 78, 14, 150  # of a model's box, and between boxes and columns
TOP, MARGIN = 40, 4
LONGEST = 30  # characters of a name that a box holds

Place = tuple[float, float]


def draw(run: Run, view: View) -> Markup:
    """The picture of a run, with the figures of one set and output."""
    rows = max(len(of.models) + (len(of.models) > 1) for of in run.rounds)
    width = len(run.rounds) * BOX + (len(run.rounds) - 1) * BETWEEN + 2 * MARGIN
    height = TOP + rows * (HEIGHT + GAP)
    label = f"{len(run.rounds)} rounds of the run {run.name}, with their models and who teaches whom"
    picture = svg.picture(width, height, label, "recipe")
    picture.set("style", f"min-width:{width * 0.8:.0f}px;max-width:{width * 1.3:.0f}px")
    places: dict[str, Place] = {}
    for column, one_round in enumerate(run.rounds):
        x = MARGIN + column * (BOX + BETWEEN)
        here: dict[str, Place] = {
            m.name: (x, TOP + row * (HEIGHT + GAP)) for row, m in enumerate(one_round.models)
        }
        _arrows(picture, one_round, places, here)
        _column(picture, run, one_round, (x, here), view)
        places = here
    return svg.markup(picture)


def _column(
    picture: Element, run: Run, of: Round, at: tuple[float, dict[str, Place]], view: View
) -> None:
    """A round's heading, the boxes of its models, and that of their mean."""
    x, here = at
    kind = "with pseudo labels" if of.labels else "again" if of.index else "labelled recordings"
    svg.add(picture, "text", f"Round {of.index}", x=x, y=16, class_="title")
    svg.add(picture, "text", kind, x=x, y=32, class_="tick")
    for model in of.models:
        _box(
            picture, here[model.name], (model.name, model.encoder), run.auc(of.index, model.name, view)
        )
    if len(of.models) > 1:
        place = x, TOP + len(of.models) * (HEIGHT + GAP)
        figures = run.auc(of.index, ENSEMBLE, view)
        _box(picture, place, (ENSEMBLE, f"mean of {len(of.models)} models"), figures, "box mean")


def _box(
    picture: Element, place: Place, names: tuple[str, str], figures: dict[str, float], kind: str = "box"
) -> None:
    x, y = place
    group = svg.add(picture, "g", data_tip="\n".join(dict.fromkeys(names)))
    svg.add(group, "rect", x=x, y=y, width=BOX, height=HEIGHT, rx=10, class_=kind)
    svg.add(group, "text", _short(names[0]), x=x + 12, y=y + 20, class_="name strong")
    second = names[1] if names[1] != names[0] else ""
    svg.add(group, "text", _short(second), x=x + 12, y=y + 35, class_="tick")
    auc = figures.get("macro_auc")
    shown = "not scored" if auc is None or auc != auc else f"{auc:.4f}"
    svg.add(group, "text", shown, x=x + 12, y=y + 64, class_="big" if figures else "tick")
    gain = figures.get("gain", float("nan"))
    if gain == gain:
        low, high = figures["gain_low"], figures["gain_high"]
        sure = "good" if low > 0 else "bad" if high < 0 else "tick"
        text, interval = f"{gain:+.4f}", f"{low:+.3f} … {high:+.3f}"
        svg.add(group, "text", text.replace("-", "−"), x=x + BOX - 12, y=y + 52, class_=f"end {sure}")
        interval = interval.replace("-", "−")
        svg.add(group, "text", interval, x=x + BOX - 12, y=y + 67, class_="tick end")


def _arrows(picture: Element, of: Round, before: dict[str, Place], here: dict[str, Place]) -> None:
    """From teachers to students, from models to those that go on from them, and what is between."""
    if not before or not of.models:
        return
    for model in of.models:
        for teacher in model.teachers:
            _arrow(picture, before.get(teacher), here[model.name], "arrow", 30.0)
        if model.warm:
            _arrow(picture, before.get(model.name), here[model.name], "arrow warm", 56.0)
    x = next(iter(here.values()))[0] - BETWEEN / 2
    for row, line in enumerate(_between(of.models[0], of)):
        svg.add(picture, "text", line, x=x, y=16 + 15 * row, class_="tick mid")


def _between(model: Model, of: Round) -> list[str]:
    lines = []
    if of.labels:
        lines = [f"{of.labels.summary.n_windows:,} windows", of.labels.summary.output]
    return lines + ["- - goes on from"] * model.warm


def _arrow(picture: Element, start: Place | None, end: Place, class_: str, down: float) -> None:
    if start is None:
        return
    x1, y1, x2, y2 = start[0] + BOX, start[1] + down, end[0] - 7, end[1] + down
    middle = (x1 + x2) / 2
    path = f"M{x1:g} {y1:g} C{middle:g} {y1:g} {middle:g} {y2:g} {x2:g} {y2:g}"
    svg.add(picture, "path", d=path, class_=class_)
    head = f"{x2:g},{y2 - 4:g} {x2 + 7:g},{y2:g} {x2:g},{y2 + 4:g}"
    svg.add(picture, "polygon", points=head, class_="head")


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
