"""From an expression's words to one vector: ids, and the networks that read these."""
