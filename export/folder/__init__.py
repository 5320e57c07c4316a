"""The model folder that export writes and the submission reads, and its model card.

Imports export.gates, export.models, train and birdkit.
"""
