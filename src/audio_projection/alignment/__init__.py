"""LLM tokens to TTS tokens: one state for each TTS token, for a whole text or for one that is still being written."""
