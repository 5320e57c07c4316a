"""Brings a run's folder back from the output of a training notebook."""

from __future__ import annotations

import tempfile
from pathlib import Path
from shlex import quote

from birdkit.errors import UserError
from birdkit.tables import read_json
from export.folder import model_folder
from export.kaggle import cli, rules
from export.kaggle.rules import KERNEL, KERNEL_METADATA
from export.kaggle.training import output
from export.kaggle.training.settings import NAME, RUN
from train.rounds import plan, sessions


def notebook(given: str, bundle: Path) -> str:
    """The notebook's id, OWNER/NOTEBOOK: as given, or of the training that was bundled last."""
    if not given and not (bundle / KERNEL / KERNEL_METADATA).is_file():
        raise UserError(f"{bundle}: no training was bundled there; give --fetch OWNER/NOTEBOOK")
    kernel = given or str(read_json(bundle / KERNEL / KERNEL_METADATA).get("id"))
    for line in rules.identity(kernel, rules.KERNEL_LENGTHS, "--fetch", pushing=True):
        raise UserError(line)
    return kernel


def fetch(kernel: str, out: Path, run: cli.Run = cli.run) -> str:
    """Replace `out` by the run of the notebook's last version; a line on it, and on what to do next.

    Raises `UserError` where there is none, where it is cut short, or where `out` holds something else.
    """
    if out.exists() and any(out.iterdir()) and not (out / NAME).is_file():
        raise UserError(f"{out}: holds what was not fetched, so it is not replaced; give another --out")
    if cli.ended_version(kernel, run) is None:
        raise UserError(f"{kernel}: no such notebook of yours; push it with --train RECIPE --push")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".fetch-") as scratch:
        cli.download(kernel, RUN, Path(scratch), run)
        fetched = Path(scratch) / RUN
        output.verify(fetched)
        own, theirs = sessions.read(out), sessions.read(fetched)
        if theirs[: len(own)] != own:
            raise UserError(f"{out}: was trained on since it was fetched; give another --out")
        model_folder.replace(out, fetched)
    if plan.is_finished(out):
        return f"{out}: finished; next: python export/to_onnx.py {quote(str(out))}"
    ended = theirs[-1]["ended"] if theirs else "without a session"
    return f"{out}: {ended}, not finished; push the next version, which goes on"
