"""Skin photos: tone, semantic maps, the networks that draw from them, and how they learn."""
