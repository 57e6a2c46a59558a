"""What a client may say over `/v1/realtime`: the part of OpenAI's events that needs no speech input."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from audio_projection.server.speech import Seed, VoiceName

Tokens = Annotated[int, Field(ge=1)] | Literal["inf"]
Modalities = list[Literal["audio"]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PCMFormat(_Strict):
    """The only format: 16-bit samples, mono, at 24 kHz."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = 24000


class OutputAudio(_Strict):
    """How answers sound."""

    format: PCMFormat | None = None
    voice: VoiceName | None = None
    speed: Annotated[float, Field(ge=1, le=1)] | None = None


class NoInput(_Strict):
    """There is no speech input; clients that switch off what belongs to it are understood."""

    turn_detection: None = None
    transcription: None = None
    noise_reduction: None = None
    format: PCMFormat | None = None


class Audio(_Strict):
    """Sound of a session or of one answer."""

    output: OutputAudio | None = None
    input: NoInput | None = None


class SessionSettings(_Strict):
    """What holds for all answers of a session; `language`, `seed` and `temperature` are this server's own."""

    type: Literal["realtime"] = "realtime"
    model: str | None = None
    instructions: str | None = None
    output_modalities: Modalities | None = None
    audio: Audio | None = None
    max_output_tokens: Tokens | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    tracing: None = None
    language: str | None = None
    seed: Seed | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None


class ResponseSettings(_Strict):
    """What holds for one answer."""

    instructions: str | None = None
    output_modalities: Modalities | None = None
    audio: Audio | None = None
    max_output_tokens: Tokens | None = None
    conversation: Literal["auto"] | None = None
    metadata: dict[str, Any] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["auto", "none"] | None = None


class TextContent(_Strict):
    """A text, of the user or of an earlier answer."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class ItemToCreate(_Strict):
    """A message for the conversation."""

    type: Literal["message"]
    role: Literal["system", "user", "assistant"]
    content: Annotated[list[TextContent], Field(min_length=1)]
    id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    object: Literal["realtime.item"] | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        return "\n".join(part.text for part in self.content)


class _Event(_Strict):
    event_id: str | None = None


class SessionUpdate(_Event):
    """Changes settings of the session."""

    type: Literal["session.update"]
    session: SessionSettings


class ItemCreate(_Event):
    """Adds a message: at the end, after another one, or at the beginning ("root")."""

    type: Literal["conversation.item.create"]
    item: ItemToCreate
    previous_item_id: str | None = None


class ItemDelete(_Event):
    """Takes a message out of the conversation."""

    type: Literal["conversation.item.delete"]
    item_id: str


class ItemRetrieve(_Event):
    """Asks for a message as it stands in the conversation."""

    type: Literal["conversation.item.retrieve"]
    item_id: str


class ItemTruncate(_Event):
    """Says how much of an answer was heard: the rest leaves the conversation."""

    type: Literal["conversation.item.truncate"]
    item_id: str
    content_index: Literal[0]
    audio_end_ms: Annotated[int, Field(ge=0)]


class ResponseCreate(_Event):
    """Asks for an answer."""

    type: Literal["response.create"]
    response: ResponseSettings | None = None


class ResponseCancel(_Event):
    """Stops the answer that is being spoken."""

    type: Literal["response.cancel"]
    response_id: str | None = None


ClientEvent = Annotated[
    SessionUpdate | ItemCreate | ItemDelete | ItemRetrieve | ItemTruncate | ResponseCreate | ResponseCancel,
    Field(discriminator="type"),
]
CLIENT_EVENT: TypeAdapter[ClientEvent] = TypeAdapter(ClientEvent)
