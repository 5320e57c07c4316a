"""From checkpoints to ONNX and OpenVINO graphs: export, fusing, conversion, quantisation.

Imports train and birdkit.
"""
