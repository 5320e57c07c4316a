"""Trainings compared with one another: what a round gained, and variants of a recipe over seeds.

Imports train's config, data, models, scoring and rounds, and birdkit.
"""
