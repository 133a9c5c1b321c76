"""Test suites for people who write a storage of their own; they need pytest."""

from __future__ import annotations

from distill_ray.testing.storage import StorageContract

__all__ = ["StorageContract"]
