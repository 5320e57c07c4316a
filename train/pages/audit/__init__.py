"""The data audit: what a folder of recordings holds, and what is wrong with which of them.

Imports birdkit and every other room of train.
"""
