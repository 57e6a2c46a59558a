"""`POST /v1/chat/completions`: the language model answers aloud, from the hidden states of its own tokens."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from audio_projection.server.answering import Asked, answer_stream
from audio_projection.server.audio_formats import complete
from audio_projection.server.catalogue import DEFAULT
from audio_projection.server.errors import APIError, as_api_error
from audio_projection.server.made_in_thread import MadeInThread
from audio_projection.server.service import Piece, Service, SpokenResponse, unless_gone
from audio_projection.server.speech import SSE, Seed, VoiceName, besides, event, voice_name

if TYPE_CHECKING:
    from audio_projection.inference import Voice

Format = Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]


class TextPart(BaseModel):
    """A part of a message; only text can be read."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A message of the conversation."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    audio: dict[str, Any] | None = Field(None, description="Not kept here: give an answer's transcript as content.")
    name: str | None = None
    refusal: None = None

    @property
    def as_read(self) -> dict[str, str]:
        """The message as the language model's template takes it. APIError for one without text."""
        if self.content is None:
            raise APIError(
                "a message has no content (of an earlier spoken answer, give its transcript: no audio is kept here)",
                param="messages",
            )
        words = self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": words}


class AudioOptions(BaseModel):
    """How the answer sounds."""

    model_config = ConfigDict(extra="forbid")
    voice: VoiceName = DEFAULT
    format: Format = "wav"


class StreamOptions(BaseModel):
    """What a stream tells besides."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class ChatRequest(BaseModel):
    """OpenAI's request, as far as it concerns spoken answers."""

    model_config = ConfigDict(extra="forbid")
    messages: list[ChatMessage] = Field(min_length=1)
    model: str = DEFAULT
    modalities: list[Literal["text", "audio"]] = Field(description='["text", "audio"]: the answer is spoken.')
    audio: AudioOptions = AudioOptions()
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Seed | None = None
    language: str | None = None
    n: Literal[1] | None = None
    user: str | None = Field(None, description="Not used, as metadata and store.")
    metadata: dict[str, Any] | None = None
    store: bool | None = None


def chat_router(service: Service) -> APIRouter:
    """The endpoint of spoken answers."""
    router = APIRouter()

    @router.post("/v1/chat/completions", response_class=Response)
    async def complete_chat(request: Request, wanted: ChatRequest) -> Response:
        if "audio" not in wanted.modalities:
            raise APIError('this server answers aloud: give modalities ["text", "audio"]', param="modalities")
        messages = [message.as_read for message in wanted.messages]
        service.check_text("".join(message["content"] for message in messages), "messages")
        voice = service.catalogue.model(wanted.model)
        limits = [limit for limit in (wanted.max_tokens, wanted.max_completion_tokens) if limit is not None]
        asked = Asked(
            messages,
            service.catalogue.speaker(voice_name(wanted.audio.voice)),
            wanted.language,
            wanted.seed,
            wanted.temperature,
            wanted.top_p,
            min(limits, default=None),
        )
        made = await unless_gone(
            request,
            service,
            service.speak("chat", voice.sample_rate, wanted.audio.format, lambda: answer_stream(voice, asked)),
        )
        spoken = SpokenAnswer(voice, wanted, asked)
        if wanted.stream:
            return SpokenResponse(service, made, spoken.events(made), SSE)
        try:
            return JSONResponse(await unless_gone(request, service, spoken.whole(made)))
        finally:
            made.close()

    return router


@dataclass
class SpokenAnswer:
    """An answer on its way, as OpenAI's objects."""

    voice: Voice
    wanted: ChatRequest
    asked: Asked
    created: int = field(default_factory=lambda: int(time.time()))
    number: str = field(default_factory=lambda: uuid.uuid4().hex)
    seconds: float = 0.0
    transcript: str = ""

    async def whole(self, made: MadeInThread[Piece]) -> dict[str, Any]:
        """The answer when all of it is spoken."""
        data = bytearray()
        async for piece in made:
            self._add(piece)
            data += piece.data
        sound = base64.b64encode(complete(self.wanted.audio.format, bytes(data))).decode()
        audio = {
            "id": f"audio_{self.number}",
            "data": sound,
            "transcript": self.transcript,
            "expires_at": self.created,  # it is not kept
        }
        message = {"role": "assistant", "content": None, "refusal": None, "audio": audio}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return self._object("chat.completion", [choice]) | {"usage": self._usage()}

    async def events(self, made: MadeInThread[Piece]) -> AsyncIterator[bytes]:
        """The answer piece by piece, as server-sent events."""
        opening: dict[str, Any] = {"role": "assistant", "audio": {"id": f"audio_{self.number}"}}
        try:
            async for piece in made:
                audio: dict[str, Any] = besides(piece)
                if added := self._add(piece):
                    audio["transcript"] = added
                if piece.data:
                    audio["data"] = base64.b64encode(piece.data).decode()
                yield self._event({**opening, "audio": {**opening.get("audio", {}), **audio}})
                opening = {}
        except Exception as error:  # the status is long sent: the client is told in the stream
            yield event({"error": as_api_error(error).body})
            return
        yield self._event({"audio": {"expires_at": self.created}}, "stop")
        if self.wanted.stream_options is not None and self.wanted.stream_options.include_usage:
            yield event(self._object("chat.completion.chunk", []) | {"usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def _add(self, piece: Piece) -> str:
        """Counts a piece; gives the words that came with it."""
        self.seconds += piece.seconds
        added, self.transcript = piece.text[len(self.transcript) :], piece.text
        return added

    def _event(self, delta: dict[str, Any], finished: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finished, "logprobs": None}
        return event(self._object("chat.completion.chunk", [choice]))

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.number}",
            "object": kind,
            "created": self.created,
            "model": self.wanted.model,
            "choices": choices,
        }

    def _usage(self) -> dict[str, Any]:
        prompt = len(self.voice.llm.chat_ids(self.asked.messages))
        text = len(self.voice.llm.tokenize(self.transcript))
        audio = round(self.seconds * self.voice.tts.frame_rate)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": text + audio,
            "total_tokens": prompt + text + audio,
            "completion_tokens_details": {"text_tokens": text, "audio_tokens": audio, "reasoning_tokens": 0},
        }
