"""From the card's files to batches."""
