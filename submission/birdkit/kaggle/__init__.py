"""Kaggle's side: mounts, rows and columns, the table with its report, the manifest, one session.

Imports birdkit's scoring and what lies below it.
"""
