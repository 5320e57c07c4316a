"""The ground floor of the kit: everything between a folder of sound files and `submission.csv`.

Runs on numpy, pandas, soundfile, soxr and one inference engine. Imports nothing else of ours, so
that `submission/` can be uploaded as it is, and training, export and the notebook share one
definition of windows, row ids, decoding and post-processing.
"""

import os
import sys

# Both engines report to their makers and write to the home folder, unless this stands before their
# first import. It stands here, because every command imports birdkit before an engine, and a child
# process inherits the variable or imports birdkit itself.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # its import fails, as if absent
