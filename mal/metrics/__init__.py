"""What the masks, and the models trained on them, are worth."""
