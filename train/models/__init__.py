"""The front end, the network, its first weights and its checkpoints.

Imports birdkit and train.config.
"""
