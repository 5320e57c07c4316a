"""One session of the simulated machine: the notebook in its image, without a network, timed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from birdkit.errors import UserError
from birdkit.kaggle.mounts import LIMIT_MIN
from export.kaggle.sim.folders import Tree

RUNNER = Path(__file__).with_name("kernel.py")
START = "import runpy, sys; sys.exit(runpy.run_path(sys.argv[1])['main'](sys.argv[2:]))"
# A new network namespace has only a loopback, which is down. It needs a user who may be mapped to its
# root, or else root. A new mount namespace makes the inputs read-only, as on Kaggle.
CUTS = (("unshare", "--map-root-user", "--net", "--mount"), ("unshare", "--net", "--mount"))
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
GRACE_S = 60
TIMED_OUT = 124


@dataclass(frozen=True)
class Ended:
    """How a session ended; `surroundings` are what the runner saw before the notebook began."""

    status: int
    seconds: float
    log: Path
    surroundings: dict[str, Any] = field(default_factory=dict)


def cut(inputs: Path) -> list[str]:
    """The start of a command that runs without a network and sees `inputs` read-only.

    Raises `UserError` where this machine allows no such thing.
    """
    for way in CUTS:
        command = [*way, "sh", "-c", READ_ONLY, "sh", str(inputs)]
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
                return command
    raise UserError(
        "the network can't be cut here: `unshare --map-root-user --net --mount` is not permitted; "
        "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1), or run as root"
    )


def environment(tree: Tree, python: Path) -> dict[str, str]:
    """Environment variables without any of the caller's: no PYTHONPATH, no pip settings, no home."""
    return {
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tree.folder / "home"),
        "TMPDIR": str(tree.scratch),
        "LANG": "C.UTF-8",
        "PIP_CONFIG_FILE": os.devnull,
        "BIRDKIT_KAGGLE_ROOT": str(tree.root),
    }


def run(tree: Tree, python: Path, notebook: Path, name: str) -> Ended:
    """Execute the notebook in a tree whose working folder is fresh. Never raises for what it does."""
    log, surroundings = tree.folder / f"{name}.log", tree.folder / f"{name}.surroundings.json"
    executed, limit_s = tree.folder / f"{name}.ipynb", LIMIT_MIN * 60
    surroundings.unlink(missing_ok=True)
    inputs = tree.root / "input"
    paths = [str(path) for path in (RUNNER, notebook, executed, surroundings, inputs)]
    start = time.monotonic()
    with listener() as port, log.open("w") as output:
        command = [*cut(inputs), str(python), "-c", START, *paths, str(port), str(limit_s)]
        status = wait(command, tree, environment(tree, python), output, limit_s + GRACE_S)
    seen = json.loads(surroundings.read_text()) if surroundings.is_file() else {}
    return Ended(status, time.monotonic() - start, log, seen)


def wait(
    command: Sequence[str], tree: Tree, environ: dict[str, str], output: Any, limit_s: float
) -> int:
    """Exit status; a kernel whose runner was killed ends by itself."""
    try:
        done = subprocess.run(
            command,
            cwd=tree.submission.parent,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        return TIMED_OUT
    return done.returncode


@contextlib.contextmanager
def listener() -> Iterator[int]:
    """A port of this machine that takes connections; a process that can't reach it has no network."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            yield port
