"""The front end, the network, its first weights and its checkpoints.

Imports birdkit and train.config.
"""

from train.models import torchvision_shim  # noqa: F401  (before anything imports timm)
