"""Balanced, verified, fully traceable corpora of synthetic medical images."""

__version__ = "0.1.0"
