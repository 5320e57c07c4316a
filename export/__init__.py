"""Export: checkpoints in, a gated model folder out. Imports `train` and `birdkit`, nothing above."""
