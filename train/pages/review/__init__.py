"""The review page: recordings to look at, listen to and mark, beside what a model heard in them.

Imports birdkit and every other room of train.
"""
