"""Executes the submission notebook; it runs in the simulated image's Python, not in the kit's.

`kaggle_sim` calls `main` there, inside the network namespace. It first writes down what can be
imported and reached. The kernel is spoken to by files (ipc): without a network, loopback is down too.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import platform
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ENGINES = ("onnxruntime", "openvino")
# A public name server, by address: no name need be resolved.
OUTSIDE = ("1.1.1.1", 53)
CONNECT_LIMIT_S = 5.0


def main(arguments: Sequence[str]) -> int:
    """NOTEBOOK EXECUTED SEEN INPUT PORT LIMIT_S; run in the folder that is to be the notebook's."""
    notebook, executed, seen, inputs, port, limit_s = arguments
    Path(seen).write_text(json.dumps(look_around(Path(inputs), int(port))))
    return execute(Path(notebook), Path(executed), int(float(limit_s)))


def look_around(inputs: Path, port: int) -> dict[str, Any]:
    """Python's version, and what must not be: engines, addresses that answer, inputs to write to.

    `port` of this machine answers every process that has a network.
    """
    return {
        "python": platform.python_version(),
        "engines": [name for name in ENGINES if importlib.util.find_spec(name)],
        "answers": [f"{host}:{n}" for host, n in (("127.0.0.1", port), OUTSIDE) if answers(host, n)],
        "writable": [str(inputs)] if writable(inputs) else [],
    }


def writable(folder: Path) -> bool:
    try:
        (folder / "probe").touch()
    except OSError:
        return False
    return True


def answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=CONNECT_LIMIT_S):
            return True
    except OSError:
        return False


def execute(notebook: Path, executed: Path, limit_s: int) -> int:
    """Run all cells; print what they print, write the executed notebook, and tell the exit status."""
    book: Any = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call,unused-ignore]
    failed = ""
    try:
        asyncio.run(run_cells(book, limit_s))
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        failed = f"{type(error).__name__}: {error}"
    nbformat.write(book, executed)  # type: ignore[no-untyped-call,unused-ignore]
    print(printed(book))
    print(failed)
    return 1 if failed else 0


async def run_cells(book: Any, limit_s: int) -> None:
    # A short path: a socket's has at most 107 characters.
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip="../../ipc/kernel")
    place = {"metadata": {"path": str(Path.cwd())}}
    client = NotebookClient(book, km=manager, timeout=limit_s, resources=place)
    try:
        await client.async_execute()
    finally:
        await manager.shutdown_kernel(now=True)


def printed(book: Any) -> str:
    """The text that an executed notebook's cells wrote to standard output and standard error."""
    outputs = [out for cell in book.cells for out in cell.get("outputs", [])]
    return "".join(out["text"] for out in outputs if out["output_type"] == "stream")
