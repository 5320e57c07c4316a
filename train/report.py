"""Show a run, recordings with what its models hear in them, or the data that it trains on, on one page.

    python train/report.py [RUN_DIR [OTHER_RUN_DIR]] [--model DIR] [--out FILE]
    python train/report.py --soundscapes DIR [RUN_DIR | --model DIR] [--data DIR] [--out FILE]
    python train/report.py --marks FILE [FILE …] [--precision P [P …]] [--out FILE]
    python train/report.py --data DIR [--cache DIR] [--out FILE]

A page is one file that opens from disk and asks no network for anything. Without RUN_DIR it shows the
run that was finished last. A second run is shown beside the first, with the paired interval of their
difference. What a run does not store is said, with the command that makes it.

`--soundscapes` makes the review page: spectrogram, sound and scores of a folder of recordings, beside
the labels and pseudo labels that there are. Its marks are saved as a CSV. `--marks` reads it, fits for
each class the score at which a detection is right with a wished probability, and writes thresholds.csv.

`--data` alone makes the data audit: what a folder of recordings holds, by class, duration, place,
author and licence, and which have duplicates, speech, silence or clipping. They play where they lie.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import choose_mode, command_parser
from birdkit.errors import UserError, run_command
from birdkit.files import write_whole
from birdkit.log import LOG
from birdkit.ranges import option
from train.fit.precision import add_device_option, choose_device
from train.pages.audit import build as audit
from train.pages.report import build, run_folder
from train.pages.review import page as review
from train.pages.review import recordings
from train.rounds import plan
from train.scoring import reviewed, thresholds

PRECISIONS = (0.9, 0.85, 0.95, 0.99)
MOST_CLIPS = 300  # a page of so many takes a quarter of a gigabyte
# What asks for a mode, and the options that it takes; all of them take --out.
MODES = {
    "--soundscapes": (
        *("RUN_DIR", "--model", "--device", "--data"),
        *("--most", "--species", "--spread"),
    ),
    "--marks": ("--precision",),
    "--data": ("--cache", "--no-call"),
    "RUN_DIR": ("OTHER_RUN_DIR", "--model"),
}


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, str]:
    """The options, and the mode that they ask for."""
    parser = command_parser(__doc__)
    parser.add_argument("run_dir", type=Path, nargs="?", help="default: the latest run")
    parser.add_argument("other_run_dir", type=Path, nargs="?", help="a run to compare with")
    parser.add_argument(
        "--model", type=Path, help="its export (default: submission/model, where made from this run)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="the page or table (default: report.html or review.html in RUN_DIR, else in this folder; "
        "thresholds.csv; audit.html)",
    )
    add_review(parser.add_argument_group("review page"))
    add_marks(parser.add_argument_group("thresholds"))
    add_audit(parser.add_argument_group("data audit"))
    args, given = parser.parse_given(argv)
    return args, choose_mode(MODES, given)


def add_review(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--soundscapes", type=Path, help="folder of recordings to review")
    group.add_argument(
        "--most", type=option(int, 1, MOST_CLIPS), default=review.MOST, help="clips to review"
    )
    group.add_argument(
        "--species", action="append", default=[], help="class to choose clips for; again for more"
    )
    group.add_argument(
        "--spread", action="store_true", help="choose over the whole range of scores, for thresholds"
    )
    add_device_option(group, "what scores the recordings")


def add_marks(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--marks", type=Path, nargs="+", metavar="FILE", help="saved marks to fit")
    group.add_argument(
        "--precision",
        type=option(float, 0.5, 0.999),
        nargs="+",
        default=PRECISIONS,
        metavar="P",
        help="wished probability of being right; the first is that of thresholds.csv",
    )


def add_audit(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--data",
        type=Path,
        help="with --soundscapes, competition folder with their labels (default: the one they lie in); "
        "alone, folder to audit",
    )
    group.add_argument(
        "--cache",
        type=Path,
        help="folder of decoded waveforms that an audit reads and keeps its own in",
    )
    group.add_argument(
        "--no-call",
        action="store_true",
        help="search recordings without a bird, too, where easybird is installed; it takes its time",
    )


def main(argv: Sequence[str] | None = None) -> int:
    args, mode = parse(argv)
    return COMMANDS[mode](args)


def review_recordings(args: argparse.Namespace) -> int:
    """Write the review page."""
    if args.run_dir and args.model:
        raise UserError("--soundscapes: one model scores them; give one RUN_DIR, or --model DIR")
    run_dir = None if args.model else args.run_dir or plan.latest_run()
    out = writable(args.out or (run_dir or Path()) / "review.html")
    if run_dir:
        model = recordings.model_of_run(run_dir, choose_device(args.device))
    else:
        model = recordings.model_of_folder(args.model)
    labels = recordings.labels_of(args.species, args.soundscapes, model, args.data)
    choice = review.Choice(args.most, labels, args.spread)
    scored = recordings.score(args.soundscapes, model, args.data)
    LOG.info(review.write(out, scored, model.name, choice))
    for name, why in scored.failures.items():
        LOG.warning(f"left out: {name}: {why}")
    LOG.info(f"{out}: {out.stat().st_size / 1e6:.1f} MB; open it in a browser")
    return 0


def fit_thresholds(args: argparse.Namespace) -> int:
    """Print the thresholds of all precisions, and write those of the first."""
    out = writable(args.out or Path("thresholds.csv"))
    head = ",".join(thresholds.COLUMNS)
    if out.exists() and not out.read_text(errors="replace").startswith(head):
        raise UserError(f"{out}: is no table of fitted thresholds, so it is kept; give another --out")
    precisions = list(dict.fromkeys(args.precision))
    marks = reviewed.read_marks(args.marks)
    fits = reviewed.fit_classes(marks, precisions)
    LOG.info(marks)
    print("\n".join(thresholds.lines(fits, precisions)))
    print(thresholds.RULE)
    table = thresholds.table(fits, precisions[0], marks.model)
    write_whole(out, table.to_csv(index=False, float_format="%.6g").encode())
    n_found = table["threshold"].notna().sum()
    LOG.info(f"{out}: thresholds of {n_found} of {len(fits)} classes, P(right) {precisions[0]:g}")
    return 0


def audit_data(args: argparse.Namespace) -> int:
    """Write the audit of a folder, and print how many recordings have which finding."""
    out = writable(args.out or Path("audit.html"))
    done = audit.write(out, args.data, args.cache, calls=args.no_call)
    LOG.info(f"{len(done.rows)} recordings of {len(done.folder.classes)} classes")
    for finding in done.findings:
        LOG.info(f"{finding.title.lower()}: {len(finding.rows)}")
    LOG.info(f"{out}: {out.stat().st_size / 1e6:.1f} MB; open it in a browser")
    return 0


def writable(out: Path) -> Path:
    """The path, where a file can be written, before any long work. Raises `UserError` or `OSError`."""
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; give the path of a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def show_run(args: argparse.Namespace) -> int:
    """Write the page of a run, or of two side by side."""
    folders = [args.run_dir or plan.latest_run()]
    folders += [args.other_run_dir] if args.other_run_dir else []
    runs = run_folder.read_all(folders)
    out = args.out or folders[0] / ("report.html" if len(runs) == 1 else f"report-{runs[1].name}.html")
    build.write(writable(out), runs, args.model)
    LOG.info(f"{out}: {out.stat().st_size / 1000:.0f} kB; open it in a browser")
    return 0


COMMANDS = {
    "--soundscapes": review_recordings,
    "--marks": fit_thresholds,
    "--data": audit_data,
    "RUN_DIR": show_run,
}

if __name__ == "__main__":
    run_command(main)
