from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdkit import grid
from birdkit.contract import Contract
from birdkit.errors import UserError

# Ten samples a second keep the examples small; nothing in the grid depends on the rate.
contracts = st.builds(
    lambda window, extra: Contract(10, window + extra, float(window), ("a",)),
    st.integers(1, 6),
    st.integers(0, 15).map(float),
)


@given(st.integers(0, 1000), contracts)
def test_windows_cover_every_sample_and_no_window_is_empty(n_samples: int, contract: Contract) -> None:
    count = grid.n_windows(n_samples, contract)
    assert count * contract.window_samples >= n_samples
    assert count == 1 or (count - 1) * contract.window_samples < n_samples


@given(st.integers(1, 400), contracts, st.integers(1, 12))
def test_the_middle_of_each_chunk_is_its_window_and_the_rest_is_context(
    n_samples: int, contract: Contract, count: int
) -> None:
    waveform = np.arange(1, n_samples + 1, dtype=np.float32)
    chunks = grid.cut_chunks(waveform, count, contract)
    assert chunks.shape == (count, contract.chunk_samples)
    before = (contract.chunk_samples - contract.window_samples) // 2
    around = np.zeros(before + n_samples + count * contract.chunk_samples, dtype=np.float32)
    around[before : before + n_samples] = waveform
    for chunk, start in zip(chunks, contract.window_samples * np.arange(count), strict=True):
        np.testing.assert_array_equal(chunk, around[start : start + contract.chunk_samples])


@pytest.mark.parametrize("n_samples", [0, 1, 159_999, 160_000, 160_001])
def test_border_lengths_of_a_recording_give_the_windows_that_hold_them(
    contract: Contract, n_samples: int
) -> None:
    expected = 2 if n_samples == 160_001 else 1
    assert grid.n_windows(n_samples, contract) == expected


def test_a_minute_has_the_twelve_row_ids_of_kaggle() -> None:
    ids = grid.row_ids("soundscape_8358733", 12, 5.0)
    assert ids[0] == "soundscape_8358733_5"
    assert ids[-1] == "soundscape_8358733_60"
    assert len(set(ids)) == 12


@given(st.text("abc_0123456789", min_size=1), st.integers(1, 500), st.sampled_from([1.0, 2.5, 5.0]))
def test_a_row_id_tells_its_file_and_its_window(stem: str, count: int, window_s: float) -> None:
    last = grid.row_ids(stem, count, window_s)[-1]
    back, end_s = grid.split_row_id(last)
    assert back == stem
    assert grid.window_index(end_s, window_s) == count - 1


@pytest.mark.parametrize(
    "row_id",
    [
        "",
        "5",
        "_5",
        "stem_",
        "stem_x",
        "stem_-5",
        "stem_nan",
        "stem_inf",
        "stem_5000000000",
        "stem_1e300",
    ],
)
def test_what_is_no_row_id_is_refused(row_id: str) -> None:
    with pytest.raises(UserError, match="is not <file stem>_<window end"):
        grid.split_row_id(row_id)


def test_a_time_off_the_grid_is_no_window() -> None:
    for end_s in (4.0, 6.0, 7.0, 9.999):
        assert grid.window_index(end_s, 5.0) is None
    assert grid.window_index(0.0, 5.0) is None


@pytest.mark.parametrize("shift", [0.25, 0.5, 0.75])
def test_time_shifted_windows_hear_that_much_earlier_and_give_each_row_its_share(shift: float) -> None:
    contract = Contract(100, 5.0, 5.0, ("a",))
    waveform = np.arange(1500, dtype=np.float32) + 1  # three windows
    shifted = grid.cut_chunks(waveform, 4, contract, shift)
    begins = np.round((np.arange(4) - shift) * 500).astype(int)
    for chunk, begin in zip(shifted, begins, strict=True):
        there = np.arange(begin, begin + 500)
        expected = np.where((there >= 0) & (there < 1500), there + 1, 0)
        np.testing.assert_array_equal(chunk, expected)
    # A score that is the time in the middle of what was heard is, for each row, its own middle.
    middles = (np.arange(4, dtype=np.float32) - np.float32(shift) + 0.5)[:, None]
    np.testing.assert_allclose(grid.onto_rows(middles, shift)[:, 0], np.arange(3) + 0.5)
    alone = grid.onto_rows(np.eye(4, dtype=np.float32), shift)
    np.testing.assert_allclose(alone[1], [0, 1 - shift, shift, 0])
