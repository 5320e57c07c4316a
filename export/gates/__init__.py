"""Gates that refuse a model that differs: parity, lower precisions, choices by macro-AUC.

Imports export.models, train and birdkit.
"""
