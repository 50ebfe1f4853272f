"""Handwriting drawn from a font: the embedded input of python -m pipeline.sample."""
