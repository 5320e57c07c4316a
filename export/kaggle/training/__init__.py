"""Training on Kaggle: the notebook with its dataset, a session of it there, and what comes back.

Imports export.kaggle, train and birdkit.
"""
