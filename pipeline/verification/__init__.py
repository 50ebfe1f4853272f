"""The checks of python -m pipeline.verify, from one frame to the whole data set and back to its archives."""
