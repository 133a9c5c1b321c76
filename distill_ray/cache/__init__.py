"""What was computed before, on any fsspec storage: parts, manifests, records and the look-up of units.

The cache is handed signatures and tables; it knows nothing of steps, of pipelines or of Ray.
"""
