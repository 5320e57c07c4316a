"""From the journal of a batch to tables of detections that other programs open.

Imports birdkit's recordings and what lies below it.
"""
