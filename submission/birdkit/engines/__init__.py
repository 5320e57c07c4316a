"""Runs a model file in ONNX Runtime or OpenVINO, in the best one that works here.

Imports the modules of birdkit beside it: contract, grid, errors and files.
"""
