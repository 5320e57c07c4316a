"""Training: a data folder and a recipe in, checkpoints out. Imports `birdkit` only."""

import os
import tempfile
from pathlib import Path

# Matplotlib keeps its list of fonts here, and not in the home folder.
os.environ.setdefault("MPLCONFIGDIR", str(Path(tempfile.gettempdir()) / f"matplotlib-{os.getuid()}"))
