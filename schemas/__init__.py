"""The contracts between the conversion, the trainer and everyone else who reads the data sets."""
