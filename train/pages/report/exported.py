"""The export of a run: what the gates measured, and the speed that the bench did."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from birdkit.engines import golden, onnx_graphs
from birdkit.errors import UserError, first_line
from birdkit.outside.card import CARD_SUFFIX
from birdkit.scoring.ensemble import SPEC_NAME
from train.pages.report.run_folder import Run
from train.pages.tables import Column, Table

DEFAULT = Path(__file__).resolve().parents[3] / "submission" / "model"
# The export's files, which the room that writes them names so, too.
PARITY, PRECISION, EVALUATION = "parity.json", "precision.json", "evaluation.json"
MADE_BY_KEY = "birdkit.made_by"


@dataclass
class Exported:
    """Tables of what is there, and for what is absent the command that makes it."""

    folder: Path | None = None
    tables: list[Table] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    absent: list[tuple[str, str]] = field(default_factory=list)  # what, command
    notes: list[str] = field(default_factory=list)


def collect(run: Run, model_dir: Path | None) -> Exported:
    """The figures of a model folder and of the bench.

    Raises `UserError` where a model folder is given and is none.
    """
    if model_dir is not None and not (model_dir / SPEC_NAME).is_file():
        raise UserError(f"{model_dir}: no model folder, it has no {SPEC_NAME}; see export/to_onnx.py")
    exported = Exported(folder=model_dir)
    hashes = {model.sha256 for of in run.rounds for model in of.models if model.sha256}
    if model_dir is None and _checkpoints_of(DEFAULT) & hashes:
        exported.folder = DEFAULT
    elif model_dir is not None and not _checkpoints_of(model_dir) & hashes:
        exported.notes.append(f"{model_dir} was made from other checkpoints than those of {run.name}.")
    folder = quote(str(exported.folder or DEFAULT))
    makers = {
        PARITY: (_parity, f"python export/to_onnx.py {quote(str(run.folder))} --out {folder}"),
        EVALUATION: (
            _evaluation,
            f"python export/to_onnx.py {quote(str(run.folder))} --data DIR --out {folder}",
        ),
        PRECISION: (_precision, f"python export/to_openvino.py {folder} --data DIR"),
        golden.NAME: (_golden, f"python export/to_openvino.py {folder} --data DIR"),
    }
    for name, (table, command) in makers.items():
        content = _json(exported.folder / name, exported) if exported.folder else None
        if content is None:
            exported.absent.append((name, command))
        else:
            _take(exported, table, content, name)
    _add_bench(exported, run, folder)
    return exported


def _take(exported: Exported, table: Any, content: Mapping[str, Any], name: str) -> None:
    """Add the table of a file; a file of other content becomes a note."""
    try:
        exported.tables.append(table(content))
        if name == EVALUATION:
            exported.lines += content["chosen"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        exported.notes.append(f"{name}: not as this kit writes it ({first_line(error)})")


def _checkpoints_of(folder: Path) -> set[str]:
    """The checkpoints that a model folder was exported from, by their sha256."""
    found = set()
    for path in sorted(folder.glob("*.onnx")):
        with path.open("rb") as file:
            try:
                model = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                made_by = json.loads(onnx_graphs.metadata(model).get(MADE_BY_KEY, "{}"))
                found |= {str(of.get("checkpoint_sha256")) for of in made_by.values()}
                found |= {
                    sha256 for of in made_by.values() for sha256 in of.get("soup_of", {}).values()
                }
            except (ValueError, IndexError, KeyError, AttributeError):
                continue  # no ONNX file of this kit
    return found


def _json(path: Path, exported: Exported) -> Any:
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except ValueError as error:
        exported.notes.append(f"{path}: not JSON ({first_line(error)})")
        return None


def _parity(content: Mapping[str, Any]) -> Table:
    keys = "engine", "probability", "logit", "clipwise_relative", "rank_flips", "spread", "n_inputs"
    rows = [(name, *(of[key] for key in keys)) for name, listed in content.items() for of in listed]
    titles = (("|Δ probability|", ".1e"), ("|Δ logit|", ".1e"), ("clipwise, relative", ".1e"))
    counts = (("rank flips", ".0f"), ("spread", ".3f"), ("inputs", ".0f"))
    columns = [Column("member"), Column("engine"), *(Column(*pair) for pair in (*titles, *counts))]
    note = "Largest differences from torch; the gate wrote these files, so all are within its limits."
    return Table("Parity with torch", columns, rows, note)


def _evaluation(content: Mapping[str, Any]) -> Table:
    rows = [(f"output {name}", auc, content["n_scored"]) for name, auc in content["outputs"].items()]
    rows += [(f"{name}, used output", *of) for name, of in content["groups"].items()]
    note = (
        f"On {content['n_soundscapes']} labelled soundscapes, {content['n_windows']} windows. "
        f"Choices were made on them, so these figures flatter. {content['note']}"
    )
    columns = Column("of the ensemble"), Column("macro-AUC", ".4f"), Column("classes", ".0f")
    return Table("Accuracy of the exported ensemble", columns, rows, note.strip())


def _precision(content: Mapping[str, Any]) -> Table:
    keys = "auc", "loss", "loss_bound", "rank_correlation", "ms_per_minute", "ms_per_minute_f32"
    rows = [
        (name, "; ".join(of["refused"]) or "accepted", *(of.get(key) for key in keys))
        for name, of in content.items()
    ]
    specs = ("macro-AUC", ".4f"), ("loss", "+.4f"), ("its bound", "+.4f"), ("rank correlation", ".5f")
    speeds = ("ms a minute", ".0f"), ("f32", ".0f")
    columns = [Column("precision"), Column("verdict"), *(Column(*pair) for pair in (*specs, *speeds))]
    return Table("Lower precisions", columns, rows, "f32 always ships; these stood before their gate.")


def _golden(content: Mapping[str, Any]) -> Table:
    rows = [
        (
            stem,
            precision,
            len(answers),
            golden.LOGIT_TOLERANCE.get(precision),
            golden.CLIPWISE_TOLERANCE.get(precision),
        )
        for stem, by_precision in content.items()
        for precision, answers in by_precision.items()
        if precision != golden.CONTRACT
    ]
    specs = ("outputs", ".0f"), ("|Δ logit| up to", "g"), ("|Δ clipwise| up to", "g")
    columns = [Column("file"), Column("precision"), *(Column(*pair) for pair in specs)]
    return Table("Golden answers", columns, rows, "Each start checks them.")


def _add_bench(exported: Exported, run: Run, folder: str) -> None:
    """Every JSON of the bench that lies in the run's folder or in the model folder."""
    kinds = {"rows": _speed, "points": _frontier}
    found = set()
    for path in _bench_files(run, exported):
        content = _json(path, exported)
        for key, table in kinds.items():
            if isinstance(content, dict) and {"machine", key} <= content.keys():
                _take(exported, table, content, path.name)
                found.add(key)
    run_dir = quote(str(run.folder))
    if "rows" not in found:
        command = f"python export/bench.py {folder} --data DIR --json {run_dir}/bench.json"
        exported.absent.append(("speed", command))
    if "points" not in found:
        command = (
            f"python export/bench.py --frontier {run_dir} --data DIR --json {run_dir}/frontier.json"
        )
        exported.absent.append(("frontier", command))


def _bench_files(run: Run, exported: Exported) -> Iterator[Path]:
    yield from sorted(run.folder.glob("*.json"))
    if exported.folder:
        known = {PARITY, PRECISION, EVALUATION, golden.NAME, SPEC_NAME}
        tables = (p for p in sorted(exported.folder.glob("*.json")) if p.name not in known)
        yield from (p for p in tables if not p.name.endswith(CARD_SUFFIX))


def _speed(content: Mapping[str, Any]) -> Table:
    keys = "ms", "decode_ms", "front_end_ms", "networks_ms", "rest_ms", "peak_mib", "rank_correlation"
    rows = [
        (of["name"], of["precision"], of["layout"], *(of.get(k) for k in keys))
        for of in content["rows"]
    ]
    titles = "ms a minute", "decode", "front end", "networks", "rest", "peak MiB"
    columns = [
        Column("setup"),
        Column("precision"),
        Column("layout"),
        *(Column(t, ".0f") for t in titles),
    ]
    return Table("Speed", [*columns, Column("rank correlation", ".5f")], rows, f"{content['machine']}.")


def _frontier(content: Mapping[str, Any]) -> Table:
    rows = [
        (
            f"{of['ensemble']}: {' + '.join(of['members'])}".removeprefix(": "),
            *(of[key] for key in ("hears", "passes", "output", "ms", "auc")),
            *of["interval"],
            "dominated" if of["dominated"] else "yes",
        )
        for of in content["points"]
    ]
    specs = ("ms a minute", ".0f"), ("macro-AUC", ".4f"), ("90 % from", ".4f"), ("to", ".4f")
    columns = [Column("members"), Column("hears"), Column("passes", ".0f"), Column("output")]
    columns += [*(Column(*pair) for pair in specs), Column("on the frontier")]
    note = f"{content['machine']}. On {content['soundscapes']} {content['judging']} soundscapes."
    return Table("Accuracy against time", columns, rows, note)
