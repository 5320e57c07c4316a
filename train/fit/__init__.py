"""Trains one model: steps, losses, precision, and a loop that can be resumed.

Imports birdkit, train.config, train.data and train.models.
"""
