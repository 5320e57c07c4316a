"""Score recordings of any length, and write tables of detections that other programs open.

    python submission/detect.py RECORDINGS … [--model DIR] [--out DIR] [--threshold X] [--species LIST]

Takes files and folders, of any rate and number of channels. Writes all windows above a floor, the
detections above a threshold, Raven's selection tables and Audacity's labels. Run again, it goes on
where it stopped, and scores only what is new or was changed. A bad recording is named and ends nothing.
Exit status 3: all is done but what was bad.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import argparse
from collections.abc import Sequence

from birdkit.commands import command_parser
from birdkit.detections import session
from birdkit.engines.layout import MOST_THREADS
from birdkit.errors import UserError, run_command
from birdkit.ranges import option

EXIT_BAD_RECORDINGS = 3
MOST_CLIPS = 10**6


def parse(argv: Sequence[str] | None) -> session.Options:
    parser = command_parser(__doc__)
    parser.add_argument(
        "recordings",
        nargs="+",
        type=Path,
        metavar="RECORDINGS",
        help="sound files, and folders of them",
    )
    parser.add_argument("--model", type=Path, default=HERE / "model", help="what export/ wrote")
    parser.add_argument("--out", type=Path, default=Path("detections"), help="folder of the tables")
    add_tables(parser.add_argument_group("what the tables hold"))
    add_engine(parser.add_argument_group("how the models run"))
    options = session.Options(**vars(parser.parse_args(argv)))
    if options.threads and options.layout not in (None, "auto"):
        raise UserError(f"--layout {options.layout} has its own threads; leave --threads out")
    return options


def add_tables(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--threshold", default=str(session.THRESHOLD),
        help="least score of a detection: a number, or a CSV with the columns class and threshold",
    )  # fmt: skip
    group.add_argument(
        "--floor", type=option(float, 0, 1),
        help=f"least score in the table of windows (default: {session.FLOOR}, or the lowest threshold)",
    )  # fmt: skip
    group.add_argument(
        "--species", help="only these: names separated by commas, or a file of them (default: all)"
    )
    group.add_argument(
        "--taxonomy", type=Path,
        help="CSV with the names of classes (default: taxonomy.csv of the model, if it is there)",
    )  # fmt: skip
    group.add_argument(
        "--join", action="store_true", help="make one detection of windows that follow each other"
    )
    group.add_argument(
        "--clips", type=option(int, 0, MOST_CLIPS), default=0,
        help="cut out the detections of the N highest scores of each class",
    )  # fmt: skip


def add_engine(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--engine", default="auto", help="auto, openvino or onnxruntime")
    group.add_argument(
        "--precision", default="auto", choices=("auto", "f32"), help="f32: use no lower one than that"
    )
    group.add_argument(
        "--threads", type=option(int, 0, MOST_THREADS), default=0, help="default: the cores usable here"
    )
    group.add_argument(
        "--layout",
        help="STREAMSxTHREADSxBATCH; auto measures (default: one stream, the least memory)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return EXIT_BAD_RECORDINGS if session.detect(parse(argv)) else 0


if __name__ == "__main__":
    run_command(main)
