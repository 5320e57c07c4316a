"""Add a model that others trained, such as BirdNET or Perch, to the ensemble of a model folder.

    python export/add_member.py [MODEL_DIR] --from birdnet [--data DIR] [--probe] [--share 0.5]
    python export/add_member.py [MODEL_DIR] --from perch --file perch_v2.onnx --labels labels.csv
    python export/add_member.py [MODEL_DIR] --from NAME.outside.json

It counts for the classes that it knows, by scientific name; for the others the kit's own models make up
the mean. With --probe it learns the others, too: a linear layer over its embedding is trained on the
recordings of --data, and answers beside its labels. With --data its share and the averaging are chosen
on the labelled soundscapes that trained no member, and the gain is printed. A submission goes on
without it where it can't run. The model folder is replaced as a whole. docs/outside.md has the cards of
other models, and what the licences allow.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import command_parser
from birdkit.contract import Contract
from birdkit.errors import UserError, run_command
from birdkit.files import is_plain
from birdkit.log import LOG
from birdkit.outside import card as cards
from birdkit.outside import presets
from birdkit.outside.card import Card
from birdkit.outside.labels import read_labels, read_synonyms
from birdkit.outside.member import Membership, contract_for
from birdkit.outside.model import open_with
from birdkit.outside.probe import Probe
from birdkit.ranges import option
from birdkit.scoring.averaging import AVERAGINGS
from birdkit.scoring.ensemble import SPEC_NAME, Spec
from export.benchmark import machine
from export.folder import model_card, model_folder, outside
from export.gates import selection, share
from train.data.waveforms import CACHE
from train.outside import probe as probes

PROBE_SAMPLES = 2048  # 170 minutes of sound


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        "model_dir", type=Path, nargs="?", default=model_folder.DEFAULT, help="what to_onnx.py wrote"
    )
    parser.add_argument(
        "--from", dest="source", required=True, help="birdnet, perch, or a card NAME.outside.json"
    )
    parser.add_argument(
        "--file", type=Path, help="the model file, or BirdNET's folder (default: found)"
    )
    parser.add_argument("--labels", type=Path, help="the labels of its output: text, or CSV")
    parser.add_argument(
        "--name", help="what the ensemble calls it (default: birdnet, perch, the card's)"
    )
    parser.add_argument("--synonyms", type=Path, help="CSV with scientific_name and synonym")
    parser.add_argument("--data", type=Path, help="data folder: names, and soundscapes to choose on")
    parser.add_argument(
        "--share",
        type=option(float, 0.0, 1.0),
        help=f"its share of the mean (default: chosen with --data, else {share.UNTESTED:g})",
    )
    parser.add_argument(
        "--probe",
        type=option(int, 1, 10_000_000),
        nargs="?",
        const=PROBE_SAMPLES,
        default=0,
        metavar="SAMPLES",
        help=f"train a probe on its embedding of so many samples (default: {PROBE_SAMPLES})",
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="decoded waveforms of --data")
    parser.add_argument("--averaging", choices=AVERAGINGS, help="default: chosen with --data")
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Source:
    """A model from outside: what the ensemble calls it, its card and its file."""

    name: str
    card: Card
    file: Path


def find_source(args: argparse.Namespace) -> Source:
    """The model that is asked for. Raises `UserError` where a part of it is missing."""
    if args.source == "birdnet":
        card, file = presets.birdnet(args.file)
    elif args.source == "perch":
        if args.file is None or args.labels is None:
            raise UserError("--from perch needs --file perch_v2.onnx and --labels labels.csv")
        card, file = presets.perch_v2(read_labels(args.labels)), args.file
    else:
        path = Path(args.source)
        if not path.name.endswith(cards.CARD_SUFFIX):
            raise UserError(
                f"--from {args.source}: is neither birdnet, perch nor NAME{cards.CARD_SUFFIX}"
            )
        card = cards.load(path)
        file = args.file or cards.model_file(path, card.kind)
    name = args.name or Path(args.source).name.removesuffix(cards.CARD_SUFFIX)
    if not is_plain(name) or "." in name:
        raise UserError(f"--name {name}: may have letters, digits and _ - only")
    if not file.is_file():
        raise UserError(f"{file}: not found; name the model file with --file")
    return Source(name, card, file)


def train_probe(args: argparse.Namespace, source: Source, kept: Contract, spec: Spec) -> Probe:
    """A probe on the model's embedding, from the recordings of --data; it counts alone as yet.

    `kept` is the contract of the member.
    """
    if args.data is None:
        raise UserError("--probe learns from recordings; give their folder with --data DIR")
    job = outside.job_of(args.model_dir, spec)
    model = open_with(source.card, source.file, embeddings=True)
    batches = probes.samples(args.data, job, kept.classes, kept.chunk_s, args.cache)
    return probes.train(model, batches, args.probe, share=1.0)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    spec = Spec.load(args.model_dir)
    source = find_source(args)
    contract = outside.contract_of(args.model_dir, spec)
    synonyms = read_synonyms(args.synonyms)
    names = outside.names_of(args.model_dir, args.data, contract.classes)
    classes = outside.mapped(source.card, names, synonyms, learns=args.probe > 0)
    LOG.info(f"{source.name}: {classes}")
    LOG.info(f"{source.name}: licence {source.card.licence}, source {source.card.source}")
    spec = share.without(spec, source.name)
    kept = contract_for(source.card, contract)
    probe = train_probe(args, source, kept, spec) if args.probe else None
    with tempfile.TemporaryDirectory(dir=args.model_dir.parent, prefix=".member-") as scratch:
        staged = Path(scratch) / "model"
        shutil.copytree(args.model_dir, staged)
        member = Membership(source.card, classes, kept, probe)
        outside.write(staged, source.name, source.file, member)
        labelled = selection.labelled_set(args.data, contract, outside.trained_on(staged, spec))
        asked = share.Asked(source.name, args.share, args.averaging, probe is not None)
        probe_share, line = share.add(staged, spec, asked, labelled, args.data)
        if probe is not None:  # whose share is part of what the golden answers are
            outside.write(staged, source.name, source.file, member.with_probe(probe_share))
        model_card.write(staged, machine.describe())
        model_folder.replace(args.model_dir, staged)
    LOG.info(line)
    LOG.info(f"{args.model_dir}: {source.name} is a member; {SPEC_NAME} holds its weight")
    return 0


if __name__ == "__main__":
    run_command(main)
