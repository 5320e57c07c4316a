"""Cuts outputs off an ONNX file, and reads its metadata, without the `onnx` package.

Kaggle's image lacks that package.

ONNX Runtime runs every node of a graph, whatever it is asked for: `only_execute_path_to_fetches` is for
its training builds alone (microsoft/onnxruntime#16013). So unneeded nodes are cut off beforehand, in
the wire format of protobuf (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from mmap import mmap

# Fields of onnx.proto, and protobuf's wire types.
MODEL_GRAPH, GRAPH_NODE, GRAPH_OUTPUT, OUTPUT_NAME, NODE_INPUT, NODE_OUTPUT = 7, 1, 12, 1, 1, 2
MODEL_METADATA, ENTRY_KEY, ENTRY_VALUE = 14, 1, 2
VARINT, LENGTH = 0, 2
FIXED_SIZES = {1: 8, 5: 4}


def with_outputs(model: bytes, names: Sequence[str]) -> bytes:
    """The file with no other outputs than these, and no node that none of them needs.

    Graphs inside nodes (If, Loop) are not followed: the kit's networks have none.
    """
    parts: list[bytes | memoryview] = []
    for number, value, field in _fields(memoryview(model)):
        if number == MODEL_GRAPH:
            graph = _needed_for(names, value)
            parts += [bytes([MODEL_GRAPH << 3 | LENGTH]), _as_varint(len(graph)), graph]
        else:
            parts.append(field)
    return b"".join(parts)


def metadata(model: bytes | mmap) -> dict[str, str]:
    """The metadata of a file, whose weights are skipped."""
    entries = (value for number, value, _ in _fields(memoryview(model)) if number == MODEL_METADATA)
    return {"".join(_texts(e, ENTRY_KEY)): "".join(_texts(e, ENTRY_VALUE)) for e in entries}


def _needed_for(outputs: Sequence[str], graph: memoryview) -> bytes:
    """A graph's message without the nodes and outputs that these outputs do not need."""
    needed, remaining = set(outputs), []
    for number, value, field in reversed(list(_fields(graph))):  # a node comes after those it needs
        if number == GRAPH_NODE:
            if needed.isdisjoint(_texts(value, NODE_OUTPUT)):
                continue
            needed.update(_texts(value, NODE_INPUT))
        elif number == GRAPH_OUTPUT and _texts(value, OUTPUT_NAME)[0] not in outputs:
            continue
        remaining.append(field)
    return b"".join(reversed(remaining))


def _texts(message: memoryview, number: int) -> list[str]:
    """Every string of a message that its field of this number holds."""
    return [str(value, "utf-8") for key, value, _ in _fields(message) if key == number]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Each field of a protobuf message: its number, its value, and its bytes as they are stored."""
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        wire_type = key & 7
        if wire_type == LENGTH:
            size, at = _varint(message, at)
        elif wire_type == VARINT:
            size = _varint(message, at)[1] - at
        else:
            size = FIXED_SIZES[wire_type]
        yield key >> 3, message[at : at + size], message[start : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while message[at] & 0x80:
        value |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | message[at] << shift, at + 1


def _as_varint(value: int) -> bytes:
    """Write what `_varint` reads."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
