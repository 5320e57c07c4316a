"""From a competition folder, or folders of recordings, to training batches.

Imports birdkit and train.config.
"""
