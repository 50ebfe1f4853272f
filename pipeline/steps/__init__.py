"""From a bitmap to a sample: the six steps, plain and compiled, and their settings."""
