"""The decoding engine: continuous batching of utterances in slots, from text embeddings to codes and samples."""
