"""The model card: one page of Markdown that describes a model folder.

All of it is read from the folder, but for two things: the licences that timm states, and the machine,
which is the one that writes the card. Speed is measured in the same process, so it is the right one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from birdkit.contract import METADATA_KEY, Contract
from birdkit.engines import golden
from birdkit.engines.precision import STORED_PRECISIONS
from birdkit.outside.card import Card, card_of
from birdkit.outside.member import Membership
from birdkit.scoring.ensemble import Spec, common_contract
from export.folder import model_folder
from export.gates import parity, precision
from export.gates.parity import Parity
from export.gates.selection import Judgement
from export.models import onnx

NAME = "card.md"
# What Markdown or HTML would take for markup; in names and texts of metadata it becomes an entity.
MARKUP = re.compile(r"<(?=[A-Za-z/!?])|\](?=[(\[])|[`*]|(?<!\w)_|_(?!\w)|\\(?=\|)")
NOT_STATED = "not stated"
UNKNOWN = {"commit": NOT_STATED, "checkpoint_sha256": NOT_STATED, "weights_from": NOT_STATED}
# Sentences and words that a member's job fills in.
ENCODER, WEIGHTS = "{model[encoder]}", "{model[weights]}"
FRONT_END = (
    "log-mel inside the graph, at {frontend[sample_rate]:,} Hz: n_fft {frontend[n_fft]} and hop "
    "{frontend[hop]} samples, {frontend[n_mels]} mel bands from {frontend[fmin_hz]:,.0f} to "
    "{frontend[fmax_hz]:,.0f} Hz, in dB below the chunk's peak: a recorder's gain does not matter; "
    "{frontend[subtract_mean]:.0%} of each band's mean over the chunk taken off"
)
TRAINING = (
    "recipe `{name}`, {fit[epochs]} epochs, batch {fit[batch]}, fold {data[fold]} held out (of "
    "{data[n_folds]} folds)"
)
AUGMENT = (
    "{augment[afar]:.0%} of the recordings made to sound distant, mixup of {augment[mixup]:.0%} of the "
    "chunks, coloured noise in {augment[noise]:.0%} (SNR "
    "{augment[noise_snr_db][0]:g} to {augment[noise_snr_db][1]:g} dB), {augment[freq_masks]} masks of "
    "up to {augment[freq_mask_share]:.0%} of the mel bands, {augment[time_masks]} of up to "
    "{augment[time_mask_share]:.0%} of the frames"
)
# Heading of a column → key of the figure, and its format.
PARITY_FIGURES = {
    "|Δp|": ("probability", ".1e"),
    "|Δlogit|": ("logit", ".1e"),
    "clipwise, relative": ("clipwise_relative", ".1e"),
    "rank flips": ("rank_flips", "d"),
    "spread": ("spread", ".2g"),
}
PRECISION_FIGURES = {
    "macro-AUC": ("auc", ".4f"),
    "of f32": ("auc_f32", ".4f"),
    "loss": ("loss", "+.4f"),
    "bound": ("loss_bound", "+.4f"),
    "rank correlation": ("rank_correlation", ".5f"),
    "ms a minute": ("ms_per_minute", ".0f"),
}


@dataclass(frozen=True)
class Member:
    """The metadata of one member in a model file."""

    name: str
    contract: Contract
    made_by: dict[str, Any]  # job or recipe, commit, checkpoint_sha256, weights_from

    @property
    def job(self) -> dict[str, Any]:
        """The settings that it was trained with, section by section; empty where none are stored.

        They are read as they stand: in a dataclass their gaps would be filled with today's defaults.
        Older model files store a recipe, whose models are a list with this one alone.
        """
        if "job" in self.made_by:
            return _table(self.made_by["job"])
        recipe = _table(self.made_by.get("recipe"))
        models = recipe.get("models", [])
        return {**recipe, "model": models[0]} if models else recipe

    def say(self, sentence: str) -> str:
        """A sentence filled with the job's settings; "not stated" where one is absent or no setting."""
        try:
            return sentence.format_map(plain(self.job))
        except (LookupError, TypeError, ValueError):
            return NOT_STATED


def plain(value: Any) -> Any:
    """Texts of metadata, in lists and tables, too, as they read: on one line, and never as markup."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if not isinstance(value, str):
        return value
    visible = "".join(char if char.isprintable() else " " for char in value)
    return MARKUP.sub(lambda found: f"&#{ord(found[0])};", " ".join(visible.split()))


def _table(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def write(folder: Path, machine: str) -> None:
    """Write `card.md` into a model folder. `machine` describes what its speed was measured on.

    Raises `UserError` where its spec or a contract is bad.
    """
    spec = Spec.load(folder)
    members = [member for stem in spec.stems for member in read_members(folder / f"{stem}.onnx")]
    judged = precision.read(folder)
    outside = read_outside(folder, spec)
    sections = {
        f"# Model card: {' + '.join(plain([*spec.members]))}": what_it_is(
            folder, spec, members, outside
        ),
        "## Training": training(members),
        "## Accuracy": accuracy(Judgement.load(folder), spec),
        "## Parity with torch": parity_with_torch(model_folder.read_parity(folder)),
        "## Lower precisions": lower_precisions(judged),
        "## Speed": speed(judged, spec, machine),
        "## Provenance and licence": provenance(members) + from_outside(outside),
    }
    page = "\n\n".join(f"{heading}\n\n{text}" for heading, text in sections.items())
    (folder / NAME).write_text(page + "\n", encoding="utf-8")


def read_members(path: Path) -> list[Member]:
    """The members of an ONNX file, from its metadata."""
    metadata = onnx.read_metadata(path)
    contract = Contract.from_metadata(metadata, str(path))
    made_by = _table(json.loads(metadata.get(onnx.MADE_BY_KEY, "{}")))
    names = contract.members or (path.stem,)
    return [Member(name, contract, UNKNOWN | _table(made_by.get(name))) for name in names]


@dataclass(frozen=True)
class Outside:
    """A member that others trained."""

    name: str
    member: Membership

    @property
    def card(self) -> Card:
        return self.member.card

    @property
    def knows(self) -> str:
        """How many classes it answers for, and by what."""
        known, labelled = int(self.member.known.sum()), int(self.member.classes.known.sum())
        text, probe = f"{known} of {len(self.member.known)}", self.member.probe
        if probe is None:
            return text
        return (
            f"{text}, {labelled} by its labels, the others by a probe on its embedding, "
            f"which has {probe.share:.3g} of the answer where both know a class"
        )


def read_outside(folder: Path, spec: Spec) -> list[Outside]:
    """The members from outside, from their cards."""
    read = {name: Membership.read(card_of(folder, name)) for name in spec.soft}
    return [Outside(name, member) for name, member in read.items()]


def from_outside(members: Sequence[Outside]) -> str:
    """Where members from outside come from, and under which licence; empty where there are none."""
    if not members:
        return ""
    header = ("member from outside", "model", "classes that it knows", "licence", "source")
    rows = [(m.name, m.card.name, m.knows, m.card.licence, m.card.source) for m in members]
    return f"""

A member from outside counts for the classes that it knows. Its licence goes for this folder, too.

{table(header, rows)}"""


def what_it_is(folder: Path, spec: Spec, members: Sequence[Member], outside: Sequence[Outside]) -> str:
    contract = common_contract({member.name: member.contract for member in members})
    smoothing = ", ".join(f"{weight:g}" for weight in spec.smoothing)
    smoothed = f"smoothed over windows by {smoothing}" if len(spec.smoothing) > 1 else "not smoothed"
    if spec.steady:
        steady = ", ".join(f"{weight:g}" for weight in spec.steady_smoothing)
        smoothed += f"; {len(spec.steady)} classes that call on and on by {steady}"
    output, first, last = plain([spec.output, contract.classes[0], contract.classes[-1]])
    heard = dict.fromkeys(_heard(member.contract, spec) for member in members)
    percent = {name: 100 * weight / sum(spec.members.values()) for name, weight in spec.members.items()}
    rows = [
        (m.name, m.say(ENCODER), f"{percent[m.name]:.3g}%", f"{m.contract.chunk_s:g}") for m in members
    ]
    rows += [(m.name, m.card.name, f"{percent[m.name]:.3g}%", f"{m.card.window_s:g}") for m in outside]
    return f"""\
Detects which of {len(contract.classes)} classes call in soundscapes, window by window.

- Input: mono audio at {contract.sample_rate:,} Hz, in {"; ".join(heard)}.
- Answer: for windows of {contract.window_s:g} s. Output `{output}` of each member,
  averaged by {spec.averaging}, {smoothed}.
- Classes: {first} to {last}; all, in order, in the ONNX metadata under
  `{METADATA_KEY}`.
- Precisions, in order of use: {", then ".join(plain((*spec.precisions, "f32")))}.
- To use it: `python submission/run.py --data DIR --model THIS_FOLDER`.

{table(("member", "encoder (timm)", "share of the mean", "chunk, s"), rows)}

{files(folder, spec)}"""


def _heard(contract: Contract, spec: Spec) -> str:
    """What a model takes at once, and how windows are made of its answer."""
    if not contract.stretch_s:
        return f"chunks of {contract.chunk_s:g} s around a window"
    by_window = " and ".join(contract.by_window)
    apart = f", which {by_window} hear by the window" if by_window else ""
    return (
        f"stretches of {contract.stretch_s:g} s{apart}, normalised {contract.chunk_s:g} s at a time, "
        f"whose frames of {contract.frame_s:.3g} s are pooled into windows ({plain(spec.pooling)})"
    )


def files(folder: Path, spec: Spec) -> str:
    """Sizes of the model files. bf16 has no file of its own; it is the f32 file, compiled otherwise."""
    ir = {"f32": ""} | {name: f".{name}" for name in STORED_PRECISIONS if name in spec.precisions}
    rows = []
    for stem in spec.stems:
        sizes = [_mb(folder, f"{stem}{kind}.xml", f"{stem}{kind}.bin") for kind in ir.values()]
        rows.append((stem, _mb(folder, f"{stem}.onnx"), *sizes))
    for name in spec.soft:
        rows.append((name, _mb(folder, f"{name}.onnx", f"{name}.tflite"), *["–"] * len(ir)))
    return table(("file", "ONNX f32, MB", *(f"OpenVINO {name}, MB" for name in ir)), rows)


def training(members: Sequence[Member]) -> str:
    trained = _once(members, TRAINING).replace("fold -1 held out", "none held out")
    return f"""\
- Front end: {_once(members, FRONT_END)}.
- Training: {trained}.
- Augmentation: {_once(members, AUGMENT)}."""


def accuracy(judged: Judgement | None, spec: Spec) -> str:
    if judged is None:
        return "There were no labelled soundscapes when it was exported, so it was not scored."
    chosen = "\n".join(f"- Chosen: {line}" for line in plain(judged.chosen))
    if not judged.n_soundscapes:
        return f"It was not scored, since {plain(judged.note)}.\n\n{chosen}"
    outputs = (f"{plain(name)} {auc:.4f}" for name, auc in judged.outputs.items())
    groups = [(name, f"{auc:.4f}", scored) for name, (auc, scored) in judged.groups.items()]
    notes = "Choices were made on these soundscapes, so the figures flatter it."
    notes += f"\n{plain(judged.note)}." if judged.note else ""
    return f"""\
Macro-AUC in f32 on {judged.n_soundscapes} labelled soundscapes ({judged.n_windows} windows,
{judged.n_scored} classes scored). {notes}

- The ensemble: {", ".join(outputs)}; used: {plain(spec.output)}
{chosen}

{table(("class group", "macro-AUC", "classes scored"), groups)}"""


def parity_with_torch(report: Mapping[str, Sequence[Parity]]) -> str:
    if not report:
        return f"Not known: the folder has no {model_folder.PARITY_NAME}."
    rows = [
        (name, comparison.engine, *_cells(asdict(comparison), PARITY_FIGURES))
        for name, compared in report.items()
        for comparison in compared
    ]
    return f"""\
Worst differences from the checkpoint in torch, and for IR from its ONNX file in ONNX Runtime. Limits,
from the left: {parity.PROBABILITY_TOLERANCE:g}, {parity.LOGIT_TOLERANCE:g},
{parity.CLIPWISE_RELATIVE_TOLERANCE:g}, no rank flips, and a spread of the probabilities over the inputs
of {parity.MIN_SPREAD:g} or more. Below a spread of {parity.FULL_SPREAD:g}, |Δp| is magnified as if it
were that. |Δlogit| of an input with logits beyond {golden.SATURATED_LOGIT:g} is relative to them.

{table(("member", "engine", *PARITY_FIGURES), rows)}"""


def lower_precisions(judged: Mapping[str, dict[str, Any]]) -> str:
    if not judged:
        return "None was tried: it runs in f32."
    rows = [(name, *_cells(of, PRECISION_FIGURES), _verdict(of)) for name, of in judged.items()]
    return f"""\
One ships where it loses at most {precision.MAX_LOSS:g} of macro-AUC, with a bound of at most
{precision.MAX_LOSS_BOUND:g} ({precision.BOUND_SHARE:.0%} of a bootstrap over soundscapes), and has a
rank correlation with f32 of at least {precision.MIN_RANK_CORRELATION:g}.

{table(("precision", *PRECISION_FIGURES, "verdict"), rows)}"""


def _verdict(figures: Mapping[str, Any]) -> str:
    if not figures["refused"]:
        return "accepted"
    return f"{'refused' if 'auc' in figures else 'not tried'}: {'; '.join(figures['refused'])}"


def speed(judged: Mapping[str, dict[str, Any]], spec: Spec, machine: str) -> str:
    tried = {name: figures for name, figures in judged.items() if "auc" in figures}
    if not tried:
        return "Not measured."
    ms = {name: tried[name]["ms_per_minute"] for name in spec.precisions if name in tried}
    ms["f32"] = next(iter(tried.values()))["ms_per_minute_f32"]
    listed = ", ".join(f"{name} {value:.0f} ms" for name, value in ms.items())
    return f"For a minute of decoded audio, in OpenVINO: {listed}; on {machine}."


def provenance(members: Sequence[Member]) -> str:
    header = ("member", "first weights", "their licence", "commit", "checkpoint SHA-256")
    rows = []
    for member in members:
        made_by = member.made_by
        checkpoint = made_by["commit"], str(made_by["checkpoint_sha256"])[:12]
        rows.append((member.name, made_by["weights_from"], licence(member), *checkpoint))
    return f"""\
{table(header, rows)}
{taught_by(members)}
Weights trained on recordings of a competition come under the licences of those recordings too, often
CC BY-NC: check them before you use or share these files."""


def taught_by(members: Sequence[Member]) -> str:
    """A paragraph on teachers from outside, whose licences may bind what they taught; or nothing."""
    teachers = dict.fromkeys(name for member in members for name in member.made_by.get("taught_by", ()))
    if not teachers:
        return ""
    listed = "; ".join(plain([*teachers]))
    return f"""
Taught by models of others: {listed}. Check what these licences say of models that were taught so.
"""


def licence(member: Member) -> str:
    """The licence of the weights that its training began with, as timm states it for the encoder."""
    weights = member.say(WEIGHTS)
    if weights == "none":
        return "none: random start"
    stated = timm_licence(member.say(ENCODER))
    elsewhere = weights != "timm" and stated != NOT_STATED
    return f"{stated}, as timm has it for this encoder; check their source" if elsewhere else stated


def timm_licence(encoder: str) -> str:
    import timm  # late: it needs the shim that `train.models` puts in place

    try:
        config = timm.get_pretrained_cfg(encoder)
    except RuntimeError:  # a tag that this version of timm does not know
        config = None
    stated = config.license if config is not None else None
    return NOT_STATED if stated in (None, "unknown") else stated


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; what is markup in a cell is escaped, as is a bar, which would end the cell."""
    lines = [header, ["---"] * len(header), *rows]
    escaped = ([plain(str(cell)).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def _cells(values: Mapping[str, Any], figures: Mapping[str, tuple[str, str]]) -> list[str]:
    return [format(values[key], style) if key in values else "–" for key, style in figures.values()]


def _once(members: Sequence[Member], sentence: str) -> str:
    """The sentence once where it is the same for all members, as in one run; else one a member."""
    filled = {member.name: member.say(sentence) for member in members}
    shared = set(filled.values())
    return (
        shared.pop()
        if len(shared) == 1
        else "; ".join(f"{plain(m)}: {text}" for m, text in filled.items())
    )


def _mb(folder: Path, *names: str) -> str:
    sizes = [(folder / name).stat().st_size for name in names if (folder / name).is_file()]
    return f"{sum(sizes) / 1e6:.1f}" if sizes else "–"
