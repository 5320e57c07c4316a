"""The rows of a file that has no scores, because it can't be read or its turn never came."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fill_missing(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give rows without scores each class's median over the others, which is neutral in a ranking.

    Parameters
    ----------
    values : (rows, classes) float32, NaN throughout a row that has no scores

    Returns
    -------
    (rows, classes) float32; zeros where no row has scores
    """
    missing = np.asarray(np.isnan(values).all(axis=1))
    neutral = np.float32(0.0) if missing.all() else np.median(values[~missing], axis=0)
    return np.where(missing[:, None], neutral, values)
