"""Partitions: every recording is in one, and a new recording changes one."""

from __future__ import annotations

from birdkit.archive.partitions import MOST_BYTES, MOST_TIMES, partitions
from birdkit.archive.places import Item


def items(count: int, size: int = 1000) -> list[Item]:
    return [Item(f"/in/{index:05d}.wav", f"{index:05d}.wav", size, "1") for index in range(count)]


def test_every_recording_is_in_one_partition_in_its_order() -> None:
    every = partitions(items(1000), 16, "made")
    assert [item for partition in every for item in partition.items] == items(1000)
    assert 1000 / 16 / 2 < len(every) < 1000 / 16 * 2
    assert max(len(partition.items) for partition in every) <= MOST_TIMES * 16
    assert len({partition.key for partition in every}) == len(every)


def test_a_new_recording_changes_the_partition_that_it_lies_in_and_few_others() -> None:
    before = {partition.key for partition in partitions(items(1000), 16, "made")}
    more = sorted([*items(1000), Item("/in/00500x.wav", "00500x.wav", 1, "1")], key=lambda i: i.name)
    after = {partition.key for partition in partitions(more, 16, "made")}
    # The next one changes, too, where a partition of the most recordings ended.
    assert 1 <= len(after - before) <= 3
    assert len(before & after) >= len(before) - 2


def test_a_long_recording_ends_its_partition() -> None:
    every = partitions(items(10, MOST_BYTES), 1000, "made")
    assert [len(partition.items) for partition in every] == [1] * 10


def test_another_model_or_a_changed_recording_is_another_partition() -> None:
    (one,) = partitions(items(1), 1, "made")
    (other,) = partitions(items(1), 1, "made otherwise")
    (changed,) = partitions([Item("/in/00000.wav", "00000.wav", 1000, "2")], 1, "made")
    assert len({one.key, other.key, changed.key}) == 3


def test_no_recording_makes_no_partition() -> None:
    assert partitions([], 8, "made") == []
