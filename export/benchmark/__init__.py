"""Speed, memory and parity of our engines beside the published designs.

Imports the other rooms of export but kaggle, train and birdkit.
"""
