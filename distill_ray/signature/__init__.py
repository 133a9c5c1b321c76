"""Canonical encoding and digests of parameters; fingerprints of code."""
