"""Training data: pairs of text and speech codes, and the corpora they come from."""
