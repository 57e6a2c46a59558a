"""The closed-form fit of the projector: ridge regression from LLM states to the TTS's text embeddings, text only."""
