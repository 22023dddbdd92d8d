"""A handful of generic figures: arrays and labels in, a PNG out.

Codebooks and levels are numbered from 1, as a person counts.
"""
