"""The frozen language model and its hidden states."""
