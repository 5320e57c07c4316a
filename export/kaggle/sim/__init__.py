"""Kaggle on this machine: its mounts, Pythons, bad files and sessions, and the verdict on a run.

Imports export.kaggle, train and birdkit.
"""
