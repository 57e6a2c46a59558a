"""Input text: what can be spoken, sentences, English normalisation, byte spans of tokens."""
