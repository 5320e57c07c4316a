"""From sound files to scores within a deadline: ensemble, post-processing, passes and budget.

Imports birdkit's engines and what lies below them.
"""
