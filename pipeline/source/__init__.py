"""Bytes in: archives and their members, the GNT format, and the chunks that are converted as one piece of work."""
