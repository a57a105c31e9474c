"""The physical chain that puts a sharp tile out of focus: light, bokeh, sensor noise, sharpening, JPEG.

All pixel arithmetic is in integers, or in single floats whose every operation IEEE 754 rounds in one
way only, so that the same tile and parameters give the same bytes on every x86-64 machine.
"""
