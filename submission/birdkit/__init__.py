"""The ground floor of the kit: everything between a folder of sound files and `submission.csv`.

Runs on numpy, pandas, soundfile, soxr and one inference engine. Imports nothing else of ours, so
that `submission/` can be uploaded as it is, and training, export and the notebook share one
definition of windows, row ids, decoding and post-processing.
"""
