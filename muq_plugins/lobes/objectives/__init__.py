"""What a pre-training is asked: targets, heads and losses, one file for each kind."""
