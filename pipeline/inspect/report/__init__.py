"""The report of `inspect --html`: one page of figures, charts and pictures."""
