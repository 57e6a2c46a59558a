"""Text or chat -> LLM hidden states -> projector -> TTS -> waveform: whole, streamed, or in a conversation.

voice = Voice.from_config("configs/nano.yaml")
speech = voice.speak("Hello world")            # float32 samples and the sample rate
answer = voice.chat([{"role": "user", "content": "Who are you?"}])
"""

from audio_projection.inference.defaults import VoiceDefaults
from audio_projection.inference.session import Session
from audio_projection.inference.speech import Speech
from audio_projection.inference.streams import Answer, SpeechStream
from audio_projection.inference.timing import AnswerTiming
from audio_projection.inference.voice import Voice, VoiceChoice
from audio_projection.inference.words import Word

__all__ = [
    "Answer",
    "AnswerTiming",
    "Session",
    "Speech",
    "SpeechStream",
    "Voice",
    "VoiceChoice",
    "VoiceDefaults",
    "Word",
]
