"""What training costs: each stage's time and memory at the size of a real competition.

Imports birdkit and every other room of train but pages.
"""
