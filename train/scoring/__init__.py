"""How good models are: truth, macro-AUC with its bootstrap, evaluation as a submission is scored.

Imports birdkit, train.config, train.data and train.models.
"""
