"""A step of training: what it changes, what it computes, and how many run in a call."""
