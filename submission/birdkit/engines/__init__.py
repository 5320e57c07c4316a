"""Runs a model file in ONNX Runtime or OpenVINO, in the best one that works here.

Imports the contract, errors and files of birdkit.
"""
