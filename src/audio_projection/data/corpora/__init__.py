"""Speech corpora: readers for their published layouts, checks, and the way from audio files to training pairs."""
