"""From samples to files: staged chunks, shards with their manifest parts, the card."""
