"""Settings with their defaults, recipes, and the job of one model of one round.

Imports birdkit only.
"""
