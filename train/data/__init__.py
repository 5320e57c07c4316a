"""From a competition folder to training batches.

Imports birdkit and train.config.
"""
