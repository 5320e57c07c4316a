"""The lower precisions an engine may run in, and whether this CPU is faster in them."""

from __future__ import annotations

from pathlib import Path

# Each takes less time or space than f32, the full precision, and ships only where a gate passed it.
LOWER_PRECISIONS = ("bf16", "int8")
# INT8 weights are files of their own; bf16 is the f32 file, compiled in another way.
STORED_PRECISIONS = ("int8",)
# Precisions that earlier kits shipped → when and why they went; f32 replaces them.
REMOVED_PRECISIONS = {
    "fp16": "removed in November 2026, it halved the file and ran as f32; docs/experiments.md"
}
# CPU flags, as /proc/cpuinfo lists them, one of which makes a precision faster than f32.
FLAGS = {"bf16": ("avx512_bf16", "amx_bf16"), "int8": ("avx512_vnni", "avx_vnni")}


def lacking(precision: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Why this CPU does not run a precision faster than f32; empty where it does."""
    try:
        flags = set(cpuinfo.read_text().split())
    except OSError:
        flags = set()
    needed = FLAGS.get(precision, ())
    return "" if not needed or flags.intersection(needed) else f"this CPU has no {' or '.join(needed)}"
