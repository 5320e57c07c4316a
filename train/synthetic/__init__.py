"""The demo competition: synthetic singers, their songs and the scenes they sing in.

Imports birdkit, train.config and train.data.
"""
