"""The neural audio codec of Qwen3-TTS: waveform to codes and back."""
