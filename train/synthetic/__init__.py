"""The demo competition: synthetic singers, their songs and the scenes they sing in.

Imports birdkit and train.config.
"""
