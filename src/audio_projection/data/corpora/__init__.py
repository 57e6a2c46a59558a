"""Corpora of recordings: their layouts, what is wrong with an item, and the way from sound files to training pairs."""
