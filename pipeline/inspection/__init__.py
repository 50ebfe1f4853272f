"""What `python -m pipeline.inspect` shows of a finished data set: figures, pictures, differences, a report."""
