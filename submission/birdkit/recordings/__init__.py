"""From recordings of any length to their scores in a journal, in a batch that goes on where it stopped.

Imports birdkit's scoring and what lies below it.
"""
