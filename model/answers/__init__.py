"""What a trained run says: its model, its answers to samples, how right and how sure they are."""
