"""Archives of recordings, scored in partitions by many workers here or on a cluster, into parquet.

Imports birdkit's detections and what lies below it; `cluster` alone imports Ray, `places` alone fsspec.
"""
