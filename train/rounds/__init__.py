"""A run from its first round to its last: plan, pseudo labels, students, figures.

Imports birdkit and train's config, data, outside, models, scoring and fit.
"""
