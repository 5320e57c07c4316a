"""Training: a competition folder and a recipe in, checkpoints out. Imports `birdkit` only."""

from train.models import torchvision_shim  # noqa: F401  (before anything here imports timm)
