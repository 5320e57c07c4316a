"""What an archive of recordings costs to score, from measured times: cores, money and bottlenecks.

    python export/costs.py [--bench FILE] [--core-usd X] [--mb-a-minute X] [--partition N] [--page FILE]

Cores and money for a thousand, a million and a hundred million hours of sound; the cores at which the
store, the network or the driver is short; and a simulation of what can't be run here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # in place of this folder, whose rooms have names of packages
    sys.path[0:1] = [str(ROOT), str(ROOT / "submission")]

from birdkit.commands import command_parser
from birdkit.errors import UserError, run_command
from birdkit.ranges import option
from export.benchmark import archive, archive_page
from train.pages.marks import put_between_marks

BENCH = ROOT / "docs" / "bench.json"
KNOWN = archive.Place()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--bench", type=Path, default=BENCH, help="what export/bench.py --json wrote")
    parser.add_argument(
        "--core-usd", type=option(float, 0, 100), default=KNOWN.core_usd, help="price of a core hour"
    )
    parser.add_argument(
        "--mb-a-minute", type=option(float, 0.001, 1000), default=KNOWN.mb_a_minute,
        help="size of a minute of sound: Ogg about 0.5, WAV at 48 kHz 5.8",
    )  # fmt: skip
    parser.add_argument(
        "--minutes-a-file", type=option(float, 0.01, 10_000), default=KNOWN.minutes_a_file,
        help="length of a recording",
    )  # fmt: skip
    parser.add_argument(
        "--partition", type=option(int, 1, 10**6), default=KNOWN.files_a_partition,
        help="recordings of a partition, as of submission/detect.py",
    )  # fmt: skip
    parser.add_argument("--page", type=Path, help="put the tables between their marks there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    try:
        work = archive.Work.of(json.loads(args.bench.read_text()))
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise UserError(
            f"--bench {args.bench}: no figures of export/bench.py ({error!r}); write them with --json"
        ) from error
    place = archive.Place(
        core_usd=args.core_usd,
        mb_a_minute=args.mb_a_minute,
        minutes_a_file=args.minutes_a_file,
        files_a_partition=args.partition,
    )
    text = archive_page.markdown(work, place)
    print(text)
    if args.page:
        put_between_marks(args.page, archive.MARK, text)
    return 0


if __name__ == "__main__":
    run_command(main)
