"""Pages and tables that people read about a run and its settings.

Imports birdkit and every other room of train.
"""
