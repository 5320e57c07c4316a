"""Score recordings of any length, and write tables of detections that other programs open.

    python submission/detect.py RECORDINGS … [--model DIR] [--out DIR] [--threshold X] [--species LIST]
    python submission/detect.py RECORDINGS … --workers N [--out PLACE]
    python submission/detect.py RECORDINGS … --ray ADDRESS [--out PLACE]

Takes files and folders, of any rate and number of channels. Writes all windows above a floor, the
detections above a threshold, Raven's selection tables and Audacity's labels. Run again, it goes on
where it stopped, and scores only what is new or was changed. A bad recording is named and ends nothing.
With --workers or --ray it scores an archive on many cores: from folders or an object store, into
partitioned parquet tables with one row for each window.
Exit status 3: all is done but what was bad.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import argparse
from collections.abc import Sequence

from birdkit.commands import choose_mode, command_parser
from birdkit.detections import session
from birdkit.detections.windows import check_pyarrow
from birdkit.engines.layout import MOST_THREADS
from birdkit.errors import UserError, run_command
from birdkit.ranges import option

EXIT_BAD_RECORDINGS = 3
MOST_CLIPS = 10**6
MOST_WORKERS = 10**5
MOST_RECORDINGS = 10**6
ARCHIVE = ["--ray", "--workers", "--partition"]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        "recordings",
        nargs="+",
        metavar="RECORDINGS",
        help="sound files, and folders of them; of an archive also addresses of an object store",
    )
    parser.add_argument("--model", type=Path, default=HERE / "model", help="what export/ wrote")
    parser.add_argument("--out", default="detections", help="folder of the tables")
    add_tables(parser.add_argument_group("what the tables hold"))
    add_engine(parser.add_argument_group("how the models run"))
    add_archive(parser.add_argument_group("archives, on many cores"))
    args, given = parser.parse_given(argv)
    choose_mode({"--ray": ARCHIVE, "--workers": ARCHIVE, "one process": ["--clips"]}, given)
    if args.threads and args.layout not in (None, "auto"):
        raise UserError(f"--layout {args.layout} has its own threads; leave --threads out")
    return args


def add_archive(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="score on a Ray cluster; local: one on this machine, for the call",
    )
    group.add_argument(
        "--workers", type=option(int, 0, MOST_WORKERS),
        help="engines side by side, each on --threads cores (1 unless given); without --ray they are "
        "processes of this machine (0: as many as there are cores)",
    )  # fmt: skip
    group.add_argument(
        "--partition", type=option(int, 1, MOST_RECORDINGS), default=32,
        help="about so many recordings go to a worker at a time, and into a file of the tables",
    )  # fmt: skip


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
    given = vars(parse(argv))
    ray, workers, partition = (given.pop(name) for name in ("ray", "workers", "partition"))
    places, out = given.pop("recordings"), given.pop("out")
    options = session.Options([Path(place) for place in places], out=Path(out), **given)
    if ray is None and workers is None:
        if remote := [place for place in places if "://" in place]:
            raise UserError(f"{remote[0]}: object stores are read with --workers or --ray")
        n_bad = session.detect(options)
    else:
        check_pyarrow()
        from birdkit.archive import session as archive  # imports pyarrow

        n_bad = archive.detect(archive.Options(places, out, ray, workers or 0, partition), options)
    return EXIT_BAD_RECORDINGS if n_bad else 0


if __name__ == "__main__":
    run_command(main)
