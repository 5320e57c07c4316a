"""A run from its first round to its last: plan, pseudo labels, students, figures.

Imports birdkit and every other room of train but pages.
"""
