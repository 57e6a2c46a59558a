"""Sessions: memory of what was heard, cancelling, truncating, keys and values kept between the turns."""

from __future__ import annotations

from typing import Any

import pytest

from audio_projection.errors import AudioProjectionError
from audio_projection.inference import Voice
from audio_projection.llm import language_model
from audio_projection.llm.prefix_cache import PrefixCache
from audio_projection.sampling import Choice
from helpers.answers import scripted
from helpers.voices import make_voice

FIRST, SECOND = "Hello dog. The quick brown fox said hello!", "The lazy dog said good day."
GREEDY = Choice(greedy=True)


def chatting(**defaults: Any) -> Voice:
    return make_voice(context="chat", layout="streaming", **{"max_frames": 10, "chunks": (1,)} | defaults)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_turns_are_remembered_as_far_as_they_were_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting()
    with voice.session([user("before"), assistant("indeed")], seed=1) as session:
        scripted(voice, monkeypatch, FIRST)
        answer = session.say("hello")
        assert session.messages == [user("before"), assistant("indeed"), user("hello")]
        list(answer)
        assert session.messages[3:] == [assistant(FIRST)] and answer.text == FIRST
        scripted(voice, monkeypatch, SECOND)
        list(session.say("and now"))
        assert session.messages[3:] == [assistant(FIRST), user("and now"), assistant(SECOND)]


def test_cancelling_keeps_what_was_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting()
    scripted(voice, monkeypatch, FIRST)
    session = voice.session()
    answer = session.say("hello")
    for _ in range(11):  # the first sentence, and the beginning of the second one
        next(answer)
    session.cancel()
    assert session.messages == [user("hello"), assistant("Hello dog.")]
    assert list(answer) == [] and voice._current_engine().active == 0
    unheard = session.say("more")
    session.cancel()
    assert session.messages == [user("hello"), assistant("Hello dog."), user("more")] and not unheard.heard
    scripted(voice, monkeypatch, SECOND)
    list(session.say("once more"))
    assert [message["role"] for message in session.messages] == ["user", "assistant", "user", "user", "assistant"]


def test_a_new_answer_cancels_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting()
    scripted(voice, monkeypatch, FIRST)
    session = voice.session()
    first = session.say("hello")
    next(first)
    second = session.say("stop")
    assert list(first) == [] and list(second)
    assert [message["content"] for message in session.messages] == ["hello", "stop", FIRST]


def test_truncating_keeps_the_words_that_were_played(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting()
    scripted(voice, monkeypatch, FIRST)
    session = voice.session()
    answer = session.say("hello")
    list(answer)
    words = answer.words
    fox = next(word for word in words if word.text == "fox")
    assert session.truncate(fox.end) == "Hello dog. The quick brown fox" == session.messages[-1]["content"]
    assert session.truncate(100.0) == "Hello dog. The quick brown fox"  # what is forgotten stays forgotten
    assert session.truncate(words[1].end) == "Hello dog."
    assert session.truncate(0.01) == "" and session.messages == [user("hello")]
    with pytest.raises(AudioProjectionError, match="no answer to truncate"):
        voice.session().truncate(1.0)


def test_figures_stay_figures_in_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting(normalise="english")
    scripted(voice, monkeypatch, "The fox said 22 to the dog. Good day.")
    session = voice.session()
    answer = session.say("hello")
    list(answer)
    assert answer.text == "The fox said twenty two to the dog. Good day."
    assert session.messages[-1] == assistant("The fox said 22 to the dog. Good day.")
    assert session.truncate(answer.words[-3].end) == "The fox said 22 to the dog."


def test_messages_may_be_changed_between_the_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting()
    asked: list[list[Any]] = []
    scripted(voice, monkeypatch, SECOND)
    generate = voice.llm.generate
    monkeypatch.setattr(
        voice.llm, "generate", lambda messages, *rest: asked.append(list(messages)) or generate(messages)
    )
    session = voice.session()
    session.messages.append({"role": "system", "content": "be brief"})
    session.messages.append(user("one"))
    session.messages.append(user("two"))
    list(session.answer())
    del session.messages[-1]
    list(session.answer())
    read = [{"role": "system", "content": "be brief"}, user("one\n\ntwo")]
    assert asked == [read, read] and session.messages[-1] == assistant(SECOND)


def test_what_a_session_refuses() -> None:
    voice = chatting()
    with pytest.raises(AudioProjectionError, match="context 'raw' and cannot chat"):
        make_voice().session()
    with pytest.raises(AudioProjectionError, match="unknown speaker 'eve'"):
        voice.session(voice="eve")
    with voice.session() as session:
        with pytest.raises(AudioProjectionError, match="nothing to answer"):
            session.say("  ")
        assert session.messages == []
    with pytest.raises(AudioProjectionError, match="the session is closed"):
        session.say("hello")


def test_a_turn_reads_only_what_is_new() -> None:
    """The tiny LLM writes what it likes; the next turn reads from where the conversation differs."""
    voice = chatting(max_new_tokens=24)
    read: list[int] = []
    step = voice.llm._step

    def counted(values: Any, ids: list[int]) -> Any:
        read.append(len(ids))
        return step(values, ids)

    voice.llm._step = counted  # type: ignore[method-assign]
    with voice.session(sampling=GREEDY) as session:
        list(session.say("hello dog"))
        whole = read[0]
        session.truncate(0.0)  # whatever it wrote: only the question is left
        del read[:]
        list(session.say("good day"))
        asked = voice.llm.chat_ids([user("hello dog\n\ngood day")])
        # the beginning, the user's head and the two words that stayed
        assert session._cache.reused == 4 and read[0] == len(asked) - 4 and whole > 4
        kept = session._cache
    assert session._cache.values is None and kept is not session._cache


@pytest.mark.parametrize("piece", [256, 3])
def test_what_is_kept_changes_no_answer(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does reading the conversation in pieces."""
    llm, cache = chatting().llm, PrefixCache()
    turns = [[user("hello dog")], [user("hello dog"), assistant("the fox"), user("good day")], [user("hello fox")]]
    for messages in (*turns, turns[1][:1]):
        monkeypatch.setattr(language_model, "PREFILL_PIECE", 256)
        fresh = list(llm.generate(messages, 20, GREEDY, None))
        monkeypatch.setattr(language_model, "PREFILL_PIECE", piece)
        again = list(llm.generate(messages, 20, GREEDY, None, cache))
        assert [token.id for token in again] == [token.id for token in fresh] and fresh
        for one, other in zip(again, fresh, strict=True):
            assert (one.state - other.state).abs().max() < 1e-4
        assert cache.ids[: len(llm.chat_ids(messages))] == llm.chat_ids(messages)
    assert cache.reused == 3  # the beginning, the user's head, "hello"


def test_a_generation_that_breaks_off_leaves_no_half_written_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    llm, cache = chatting().llm, PrefixCache()
    next(llm.generate([user("hello dog")], 20, GREEDY, None, cache))
    step = llm._step
    monkeypatch.setattr(llm, "_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(llm.generate([user("hello dog")], 20, GREEDY, None, cache))
    assert cache.values is None and cache.ids == []
    monkeypatch.setattr(llm, "_step", step)
    assert next(llm.generate([user("hello dog")], 20, GREEDY, None, cache)).id is not None


def test_a_long_conversation_loses_its_oldest_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = chatting(max_new_tokens=24, system="be brief")
    read: list[list[Any]] = []
    scripted(voice, monkeypatch, SECOND)
    generate = voice.llm.generate
    monkeypatch.setattr(
        voice.llm, "generate", lambda messages, *rest: read.append(list(messages)) or generate(messages)
    )
    with voice.session() as session:
        for number in range(12):
            list(session.say(f"the quick brown fox {number}"))
        assert len(session.messages) == 24
    last = read[-1]
    assert last[0] == {"role": "system", "content": "be brief"} and last[1]["role"] == "user"
    assert 3 < len(last) < 20 and last[-1] == user("the quick brown fox 11")
    assert len(voice.llm.chat_ids(last)) <= voice.llm.context_length - 24
