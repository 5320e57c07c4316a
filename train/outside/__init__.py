"""Teachers that others trained: their answers for this data, for rounds and distillation to learn from.

Imports train's config and data, and birdkit.
"""
