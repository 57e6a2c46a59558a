"""`/v1/realtime`: a spoken conversation over a WebSocket, by OpenAI's events."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from audio_projection.server.answering import Asked
from audio_projection.server.catalogue import DEFAULT
from audio_projection.server.errors import APIError, as_api_error, invalid_request
from audio_projection.server.made_in_thread import MadeInThread
from audio_projection.server.realtime.conversation import Conversation, Item, new_id
from audio_projection.server.realtime.events import (
    CLIENT_EVENT,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    ResponseCancel,
    ResponseCreate,
    ResponseSettings,
    SessionSettings,
    SessionUpdate,
)
from audio_projection.server.service import STALLED_SECONDS, Piece, Service
from audio_projection.server.speech import voice_name

if TYPE_CHECKING:
    from audio_projection.inference import Voice

_PROTOCOL = "realtime"


def realtime_router(service: Service) -> APIRouter:
    """The endpoint of realtime sessions."""
    router = APIRouter()
    open_sessions: set[RealtimeSession] = set()

    @router.websocket("/v1/realtime")
    async def realtime(socket: WebSocket, model: str = DEFAULT) -> None:
        try:
            if len(open_sessions) >= service.settings.sessions:
                raise APIError("too many sessions are open: try again later", 429, headers={"Retry-After": "10"})
            voice = service.catalogue.model(model)
        except APIError as error:
            await socket.send_denial_response(error.response)
            return
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(subprotocol=_PROTOCOL if _PROTOCOL in offered else None)
        session = RealtimeSession(service, voice, model, socket)
        open_sessions.add(session)
        service.metrics.sessions.set(len(open_sessions))
        try:
            await session.run()
        finally:
            open_sessions.discard(session)
            service.metrics.sessions.set(len(open_sessions))

    return router


class RealtimeSession:
    """One client's conversation. One answer is spoken at a time."""

    def __init__(self, service: Service, voice: Voice, model: str, socket: WebSocket) -> None:
        self._service, self._voice, self._model, self._socket = service, voice, model, socket
        self._id = new_id("sess")
        self._settings = SessionSettings()
        self._conversation = Conversation()
        self._response: Response | None = None
        self._speaking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Answers the client's events until it goes away."""
        try:
            await self.send("session.created", session=self._as_json())
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                await self._take(message.get("text"))
        except (WebSocketDisconnect, asyncio.TimeoutError):
            pass
        finally:
            await self._stop()
            await asyncio.to_thread(self._conversation.close)

    async def send(self, kind: str, **fields: Any) -> None:
        """Sends an event; WebSocketDisconnect when the client has gone away."""
        event = {"type": kind, "event_id": new_id("event"), **fields}
        try:
            await asyncio.wait_for(self._socket.send_text(json.dumps(event)), STALLED_SECONDS)
        except RuntimeError:  # it is closed
            raise WebSocketDisconnect from None

    async def _take(self, text: str | None) -> None:
        event_id = None
        try:
            try:
                values = json.loads(text or "")
            except (ValueError, RecursionError):
                raise APIError("the event is not valid JSON") from None
            event_id = values.get("event_id") if isinstance(values, dict) else None
            try:
                event = CLIENT_EVENT.validate_python(values)
            except ValidationError as error:
                raise invalid_request(error.errors()) from None
            await self._do(event)
        except WebSocketDisconnect:
            raise
        except Exception as error:
            body = {**as_api_error(error).body, "event_id": event_id if isinstance(event_id, str) else None}
            await self.send("error", error=body)

    async def _do(self, event: Any) -> None:
        conversation = self._conversation
        if isinstance(event, SessionUpdate):
            await self._update(event.session)
        elif isinstance(event, ItemCreate):
            await self._create(event)
        elif isinstance(event, ItemDelete):
            item = self._settled(event.item_id)
            conversation.items.remove(item)
            await self.send("conversation.item.deleted", item_id=item.id)
        elif isinstance(event, ItemRetrieve):
            await self.send("conversation.item.retrieved", item=conversation.find(event.item_id).as_json)
        elif isinstance(event, ItemTruncate):
            if self._response is not None and self._response.item.id == event.item_id:
                await self._stop()
            conversation.truncate(conversation.find(event.item_id), event.audio_end_ms / 1000)
            await self.send(
                "conversation.item.truncated",
                **{"item_id": event.item_id, "content_index": 0, "audio_end_ms": event.audio_end_ms},
            )
        elif isinstance(event, ResponseCreate):
            await self._respond(event.response or ResponseSettings())
        elif isinstance(event, ResponseCancel):
            response = self._response
            if response is None or event.response_id not in (None, response.id):
                raise APIError("no such answer is being spoken", code="response_cancel_not_active")
            await self._stop()

    def _settled(self, item_id: str) -> Item:
        if self._response is not None and self._response.item.id == item_id:
            raise APIError("the answer is being spoken: cancel it first", param="item_id")
        return self._conversation.find(item_id)

    async def _update(self, settings: SessionSettings) -> None:
        given = settings.model_dump(exclude_unset=True)
        if given.get("model") not in (None, self._model):
            raise APIError("the model of a session cannot be changed: open another one", param="session.model")
        changed = SessionSettings.model_validate(merged(self._settings.model_dump(exclude_unset=True), given))
        self._service.check_text(changed.instructions or "", "session.instructions")
        self._service.catalogue.speaker(spoken_by(changed, None))
        await asyncio.to_thread(self._voice.check, None, changed.language)
        self._settings = changed
        await self.send("session.updated", session=self._as_json())

    async def _create(self, event: ItemCreate) -> None:
        self._service.check_text(event.item.text, "item.content")
        item = Item(event.item.id or new_id("item"), event.item.role, event.item.text)
        previous = self._conversation.add(item, event.previous_item_id)
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self.send(kind, item=item.as_json, previous_item_id=previous)

    async def _respond(self, wanted: ResponseSettings) -> None:
        if self._response is not None:
            raise APIError(
                "an answer is being spoken: wait for it or cancel it", code="conversation_already_has_active_response"
            )
        instructions = wanted.instructions or self._settings.instructions
        self._service.check_text(instructions or "", "response.instructions")
        limit = wanted.max_output_tokens or self._settings.max_output_tokens
        asked = Asked(
            self._conversation.messages(instructions),
            self._service.catalogue.speaker(spoken_by(self._settings, wanted)),
            self._settings.language,
            self._settings.seed,
            self._settings.temperature,
            tokens=None if limit == "inf" else limit,
        )
        item = Item(new_id("item"), "assistant", status="in_progress")
        previous = self._conversation.add(item)
        self._response = response = Response(self, item, wanted.metadata)
        made = self._service.speak(
            "realtime", self._voice.sample_rate, "pcm", lambda: self._conversation.answer(self._voice, asked, item)
        )
        self._speaking = asyncio.create_task(self._speak(response, made, previous))

    async def _speak(self, response: Response, made: Any, previous: str | None) -> None:
        try:
            with contextlib.suppress(WebSocketDisconnect, asyncio.TimeoutError):
                await response.speak(made, previous)
        finally:
            self._response = None
            if response.item.answer is None:  # it never began
                with contextlib.suppress(ValueError):
                    self._conversation.items.remove(response.item)

    async def _stop(self) -> None:
        """Stops the answer that is being spoken, and waits until its last event is sent."""
        if self._response is not None and self._speaking is not None:
            self._response.cancel()
            await self._speaking

    def _as_json(self) -> dict[str, Any]:
        settings = self._settings
        voice = spoken_by(settings, None)
        return {
            "id": self._id,
            "object": "realtime.session",
            "type": "realtime",
            "model": self._model,
            "instructions": settings.instructions or self._voice.defaults.system or "",
            "output_modalities": ["audio"],
            "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": voice, "speed": 1.0}},
            "max_output_tokens": settings.max_output_tokens or "inf",
            "tools": [],
            "tool_choice": "none",
        }


class Response:
    """One answer on its way, as events."""

    def __init__(self, session: RealtimeSession, item: Item, metadata: dict[str, Any] | None) -> None:
        self.id = new_id("resp")
        self.item = item
        self._session, self._metadata = session, metadata
        self._stopped = asyncio.Event()
        self._transcript = ""

    def cancel(self) -> None:
        """No more sound is sent; the events that end the answer are."""
        self._stopped.set()

    async def speak(self, coming: Any, previous: str | None) -> None:
        """Sends the whole answer; `coming` gives its sound once it is its turn."""
        send, place = self._session.send, {"response_id": self.id, "item_id": self.item.id, "output_index": 0}
        await send("response.created", response=self._as_json("in_progress"))
        opened = {"response_id": self.id, "output_index": 0}
        await send("response.output_item.added", **opened, item=self.item.as_json)
        await send("conversation.item.added", item=self.item.as_json, previous_item_id=previous)
        part = {"type": "audio", "transcript": ""}
        await send("response.content_part.added", **place, content_index=0, part=part)
        error: APIError | None = None
        try:
            await self._sound(coming, place)
        except WebSocketDisconnect:
            raise
        except Exception as raised:
            error = as_api_error(raised)
        self._settle(error)
        place["content_index"] = 0
        await send("response.output_audio.done", **place)
        await send("response.output_audio_transcript.done", **place, transcript=self._transcript)
        await send("response.content_part.done", **place, part={"type": "audio", "transcript": self._transcript})
        await send("response.output_item.done", **opened, item=self.item.as_json)
        await send("conversation.item.done", item=self.item.as_json, previous_item_id=previous)
        await send("response.done", response=self._as_json(self._status(error), error))

    async def _sound(self, coming: Any, place: dict[str, Any]) -> None:
        stopped = asyncio.ensure_future(self._stopped.wait())
        beginning = asyncio.ensure_future(coming)
        made: MadeInThread[Piece] | None = None
        try:
            await asyncio.wait({stopped, beginning}, return_when=asyncio.FIRST_COMPLETED)
            if not beginning.done():
                return
            made = beginning.result()
            while not self._stopped.is_set():
                following = asyncio.ensure_future(anext(made, None))
                await asyncio.wait({stopped, following}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    following.cancel()
                    return
                piece = following.result()
                if piece is None:
                    return
                await self._send_piece(piece, place)
        finally:
            stopped.cancel()
            beginning.cancel()
            if made is not None:
                made.close()

    async def _send_piece(self, piece: Piece, place: dict[str, Any]) -> None:
        added, self._transcript = piece.text[len(self._transcript) :], piece.text
        if added:
            await self._session.send("response.output_audio_transcript.delta", **place, content_index=0, delta=added)
        if piece.data:
            sound = base64.b64encode(piece.data).decode()
            await self._session.send("response.output_audio.delta", **place, content_index=0, delta=sound)
        self.item.sent += piece.seconds

    def _settle(self, error: APIError | None) -> None:
        """What stays of the answer: what was sent of it."""
        item = self.item
        item.status = "completed" if error is None and not self._stopped.is_set() else "incomplete"
        if item.answer is not None:
            item.keep(item.sent)

    def _status(self, error: APIError | None) -> str:
        return "failed" if error else "cancelled" if self._stopped.is_set() else "completed"

    def _as_json(self, status: str, error: APIError | None = None) -> dict[str, Any]:
        details: dict[str, Any] | None = None
        if status != "in_progress":
            details = {"type": status}
        if status == "cancelled":
            details = {"type": status, "reason": "client_cancelled"}
        if error is not None:
            details = {"type": status, "error": error.body}
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": details,
            "output": [] if status == "in_progress" else [self.item.as_json],
            "output_modalities": ["audio"],
            "metadata": self._metadata,
        }


def spoken_by(settings: SessionSettings, wanted: ResponseSettings | None) -> str:
    """The name of the voice that was asked for."""
    for chosen in (wanted, settings):
        audio = None if chosen is None else chosen.audio
        if audio is not None and audio.output is not None and audio.output.voice is not None:
            return voice_name(audio.output.voice)
    return DEFAULT


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The old settings with the new ones over them, section by section."""
    result = dict(old)
    for key, value in new.items():
        before = result.get(key)
        result[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result
