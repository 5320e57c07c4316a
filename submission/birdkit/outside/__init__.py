"""Runs models that others trained, such as BirdNET and Perch, on the windows of the kit's grid.

Imports birdkit's engines and what lies below them.
"""
