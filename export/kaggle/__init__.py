"""The upload to Kaggle: its rules, the engines' wheels, the official command line.

Imports export.folder and birdkit.
"""
