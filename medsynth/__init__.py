"""Balanced, verified, fully traceable corpora of synthetic medical images."""

__version__ = "0.2.0"
