"""Conversations as the LLM reads them: checked, with the system prompt, and short enough."""

from __future__ import annotations

from collections.abc import Sequence

from audio_projection.errors import AudioProjectionError
from audio_projection.inference.defaults import VoiceDefaults
from audio_projection.llm.language_model import LanguageModel, Message
from audio_projection.text.input_text import check_characters


def check_chat(llm: LanguageModel) -> None:
    """Raises AudioProjectionError for an LLM whose projector was not trained with the chat context."""
    if llm.context != "chat":
        raise AudioProjectionError(
            f"this projector was trained with the context {llm.context!r} and cannot chat; "
            "train one with llm.context=chat"
        )


def check_messages(messages: Sequence[Message]) -> None:
    """Raises AudioProjectionError for messages that are no messages, or a last one with nothing to answer."""
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise AudioProjectionError("each chat message needs a role and a content")
        check_characters(message["content"])
    if not messages or not messages[-1]["content"].strip():
        raise AudioProjectionError("there is nothing to answer: the last chat message is empty")


def with_system(llm: LanguageModel, messages: Sequence[Message], system: str | None) -> list[Message]:
    """The conversation with the system prompt; in the first message where the template knows no such role."""
    if not system or any(message["role"] == "system" for message in messages):
        return list(messages)
    asked: list[Message] = [{"role": "system", "content": system}, *messages]
    try:
        llm.chat_ids(asked)
    except AudioProjectionError:
        first = {**messages[0], "content": f"{system}\n\n{messages[0]['content']}"}
        return [first, *messages[1:]]
    return asked


def turns_joined(messages: Sequence[Message]) -> list[Message]:
    """Messages of one role that follow one another as one, as many chat templates want it: an answer of which nothing
    was heard leaves two of the user's."""
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1] = {**message, "content": f"{joined[-1]['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    return joined


def fitting(llm: LanguageModel, messages: Sequence[Message], defaults: VoiceDefaults) -> list[Message]:
    """The conversation with its system prompt, without its oldest turns where it is too long for the LLM's context and
    an answer."""
    room = llm.context_length - min(defaults.max_new_tokens, llm.context_length // 2)
    first = next((number for number, message in enumerate(messages) if message["role"] != "system"), 0)
    head, turns = list(messages[:first]), list(messages[first:])
    while True:
        conversation = with_system(llm, [*head, *turns_joined(turns)], defaults.system)
        if len(turns) <= 1 or len(llm.chat_ids(conversation)) < room:
            return conversation
        turns = turns[1:]
        while len(turns) > 1 and turns[0]["role"] != "user":
            turns = turns[1:]
