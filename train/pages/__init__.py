"""What people read: tables put between marks.

Imports birdkit and every other package of train.
"""
