"""Native PyTorch implementation of Qwen3-TTS, which loads the official checkpoint folders unchanged.

Example:
    tts = Qwen3TTS.from_pretrained("models/Qwen3-TTS-12Hz-1.7B-CustomVoice")
    ids, spans = tts.tokenize("Hello there.")
    codes = generate(tts, [(tts.prefix("ryan", "english"), tts.text_embeddings(torch.tensor(ids)))])[0]
    samples = tts.codec.decode(codes)
"""

from audio_projection.sampling import Choice, Sampling
from audio_projection.tts.engine.decoder import Decoder
from audio_projection.tts.generate import decode, generate, stream
from audio_projection.tts.model import Qwen3TTS
from audio_projection.tts.prompt import clone_prefill, training_sequence

__all__ = [
    "Choice",
    "Decoder",
    "Qwen3TTS",
    "Sampling",
    "clone_prefill",
    "decode",
    "generate",
    "stream",
    "training_sequence",
]
