"""Trains one model: steps, losses, precision, and a loop that can be resumed.

Imports birdkit, train.config, train.data and train.models.
"""

from train.models import torchvision_shim  # noqa: F401  (before anything imports timm)
