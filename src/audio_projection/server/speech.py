"""`POST /v1/audio/speech`: a text spoken, as a sound file or as server-sent events while it is made."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from audio_projection.server.audio_formats import media_type
from audio_projection.server.catalogue import DEFAULT
from audio_projection.server.errors import APIError, as_api_error
from audio_projection.server.made_in_thread import MadeInThread
from audio_projection.server.service import Piece, Service, SpokenResponse, unless_gone

Seed = Annotated[int, Field(ge=0, lt=2**63)]
SSE = "text/event-stream"


class VoiceID(BaseModel):
    """A voice by its id, as OpenAI names its custom voices."""

    model_config = ConfigDict(extra="forbid")
    id: str


VoiceName = str | VoiceID


class SpeechRequest(BaseModel):
    """OpenAI's request, with `language` and `seed` besides."""

    model_config = ConfigDict(extra="forbid")
    input: str = Field(description="The text to speak.")
    model: str = Field(DEFAULT, description="A model of /v1/models; OpenAI's names mean the first.")
    voice: VoiceName = Field(DEFAULT, description="A voice of /v1/audio/voices; OpenAI's names mean the default.")
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    speed: float = Field(1.0, description="Only 1: the voice chooses its pace.")
    instructions: str | None = Field(None, description="Refused: the voice follows none.")
    language: str | None = Field(None, description="A language of the TTS, or auto.")
    seed: Seed | None = Field(None, description="The same seed gives the same speech.")


def speech_router(service: Service) -> APIRouter:
    """The endpoints of speech."""
    router = APIRouter()

    @router.post(
        "/v1/audio/speech",
        response_class=Response,
        responses={200: {"content": {media_type(kind): {} for kind in ("wav", "mp3", "opus", "aac", "flac", "pcm")}}},
    )
    async def speak(request: Request, wanted: SpeechRequest) -> Response:
        _check(wanted)
        service.check_text(wanted.input, "input")
        voice = service.catalogue.model(wanted.model)
        speaker = service.catalogue.speaker(voice_name(wanted.voice))
        kind = wanted.response_format
        made = await unless_gone(
            request,
            service,
            service.speak(
                "speech",
                voice.sample_rate,
                kind,
                lambda: voice.stream(wanted.input, speaker, wanted.language, wanted.seed),
            ),
        )
        if wanted.stream_format == "sse":
            tokens = len(voice.tts.tokenize(wanted.input)[0])
            return SpokenResponse(service, made, _events(made, tokens, voice.tts.frame_rate), SSE)
        return SpokenResponse(service, made, _sound(made), media_type(kind))

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        entries = [
            {"id": name, "object": "model", "created": 0, "owned_by": "audio-projection"}
            for name in service.catalogue.models
        ]
        return {"object": "list", "data": entries}

    @router.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        service.catalogue.model(name)
        return {"id": name, "object": "model", "created": 0, "owned_by": "audio-projection"}

    @router.get("/v1/audio/voices")
    async def voices() -> dict[str, Any]:
        return {"voices": service.catalogue.voices, "languages": service.catalogue.languages}

    return router


def voice_name(voice: VoiceName) -> str:
    """The name in either form."""
    return voice.id if isinstance(voice, VoiceID) else voice


def _check(wanted: SpeechRequest) -> None:
    if wanted.speed != 1.0:
        raise APIError("speed must be 1: the voice chooses its pace; change it when you play the sound", param="speed")
    if wanted.instructions:
        raise APIError("this voice follows no instructions: leave them out", param="instructions")


async def _sound(made: MadeInThread[Piece]) -> AsyncIterator[bytes]:
    async for piece in made:
        if piece.data:
            yield piece.data


async def _events(made: MadeInThread[Piece], tokens: int, frame_rate: float) -> AsyncIterator[bytes]:
    seconds = 0.0
    try:
        async for piece in made:
            seconds += piece.seconds
            if piece.data or piece.words:
                sound = base64.b64encode(piece.data).decode()
                yield event({"type": "speech.audio.delta", "audio": sound, **besides(piece)})
    except Exception as error:  # the status is long sent: the client is told in the stream
        yield event({"type": "error", "error": as_api_error(error).body})
        return
    frames = round(seconds * frame_rate)
    usage = {"input_tokens": tokens, "output_tokens": frames, "total_tokens": tokens + frames}
    yield event({"type": "speech.audio.done", "usage": usage})


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(body)}\n\n".encode()


def besides(piece: Piece) -> dict[str, Any]:
    """What this server tells besides OpenAI's fields: the words with their places in the sound, and with the first
    sound where the time went, all in seconds."""
    words = [{"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)} for word in piece.words]
    return {"words": words} if piece.timing is None else {"words": words, "timing": piece.timing}
