"""Signatures: what names a computation. Canonical encoding of values, fingerprints of code.

Nothing here is imported early, and nothing here needs more than the standard library.
"""
