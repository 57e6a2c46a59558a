"""Answers for a voice that knows words only: what is not written as it is said is read again as words."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from audio_projection.alignment.align import bind, cover
from audio_projection.alignment.rereading import Rereading
from audio_projection.alignment.spoken_tokens import SpokenTokens
from audio_projection.alignment.streaming import AnswerToken, LiveAnswer
from audio_projection.inference import Voice
from audio_projection.llm.language_model import GeneratedToken, LanguageModel
from audio_projection.text.input_text import Reading
from audio_projection.text.token_spans import byte_spans, token_bytes
from audio_projection.tts.tokenizer import TextTokenizer
from helpers.tiny_llm import make_llm, make_tokenizer
from helpers.voices import make_voice

QUESTION = [{"role": "user", "content": "hello dog"}]
TTS = TextTokenizer(make_tokenizer().backend_tokenizer)


class Answering:
    """The tiny LLM made to say a text, token by token."""

    def __init__(self, answer: str, limit: int | None = None, longest: int = 60) -> None:
        self.llm: LanguageModel = make_llm(layers=[2, 4], context="chat")
        self.head, self.ids = self.llm.chat_ids(QUESTION), self.llm.tokenize(answer)
        self.states = self.llm.read([self.head + self.ids])[0][len(self.head) :]
        self.pulled = 0
        tokens = SpokenTokens(self._say(), limit)
        rereading = Rereading(self.llm, Reading("english"), lambda: self.head, tokens.ids)
        self.live = LiveAnswer(tokens, TTS, longest, rereading)

    def _say(self) -> Iterator[GeneratedToken]:
        for token, state in zip(self.ids, self.states, strict=True):
            self.pulled += 1
            yield GeneratedToken(token, token_bytes(self.llm.tokenizer)(token), state)

    def sentences(self) -> list[tuple[str, list[AnswerToken]]]:
        found = [list(tokens) for tokens in self.live.sentences()]
        return [(TTS.text([token.id for token in tokens]), tokens) for tokens in found]

    def reread(self, before: int, lead: str, text: str, part: str) -> torch.Tensor:
        """Bound states of the TTS tokens of a part at the end of a text that is read in place of the answer's rest."""
        ids = self.llm.tokenize(lead + text)
        head = self.head + self.ids[:before]
        states = self.llm.read([head + ids])[0][len(head) :]
        base = len((lead + text)[: len(lead + text) - len(part)].encode())
        spans = [(start + base, end + base) for start, end in TTS.encode(part)[1]]
        return bind(states, cover(byte_spans(self.llm.tokenizer, ids, lead + text), spans))


def states_of(tokens: list[AnswerToken]) -> torch.Tensor:
    return torch.stack([token.state for token in tokens])


def test_a_sentence_with_figures_is_read_again_as_words() -> None:
    answering = Answering("Hello dog. The fox said 22 hello. Good day.")
    texts = answering.sentences()
    assert [text for text, _ in texts] == ["Hello dog.", "The fox said twenty two hello.", "Good day."]
    assert answering.live.spoken == "Hello dog. The fox said twenty two hello. Good day."
    before = len(answering.llm.tokenize("Hello dog."))
    rest = " twenty two hello."
    expected = answering.reread(before, " ", "The fox said twenty two hello.", rest)
    torch.testing.assert_close(states_of(texts[1][1])[-len(expected) :], expected)
    plain = Answering("Hello dog. The fox said")
    own = states_of([token for _, tokens in plain.sentences() for token in tokens])
    count = len(texts[0][1]) + len(texts[1][1]) - len(expected)
    both = torch.cat([states_of(texts[0][1]), states_of(texts[1][1])])
    torch.testing.assert_close(both[: count - 1], own[: count - 1])


def test_a_sentence_that_begins_with_a_figure() -> None:
    answering = Answering("22 dogs said hello")
    (text, tokens) = answering.sentences()[0]
    assert text == "Twenty two dogs said hello"
    torch.testing.assert_close(states_of(tokens), answering.reread(0, "", text, text))


def test_words_before_a_figure_are_spoken_before_the_sentence_is_whole() -> None:
    answering = Answering("the quick brown fox jumps over the lazy dog and said 22 hello there good day")
    tokens = next(answering.live.sentences())
    first = next(tokens)
    assert TTS.text([first.id]).strip() in "the" and answering.pulled < len(answering.ids) / 3


@pytest.mark.parametrize(
    ("answer", "spoken"),
    [
        ("hello Dr. Fox. Good day", ["hello Doctor Fox.", "Good day"]),
        ("hello THE DOG. Good day", ["hello the dog.", "Good day"]),
        ("**hello** 5 km\n\n- good `day`", ["hello five kilometers", "good day"]),
        ("hello 1999, a dog", ["hello nineteen ninety nine, a dog"]),
        ("No dog. The co said no.", ["No dog.", "The co said no."]),
        ("hello é dog", ["hello é dog"]),
        ("$5", ["Five dollars"]),
        ("hello 5", ["hello five"]),
    ],
)
def test_what_is_heard(answer: str, spoken: list[str]) -> None:
    answering = Answering(answer)
    assert [text for text, _ in answering.sentences()] == spoken
    assert answering.live.spoken == " ".join(spoken)


def test_a_long_rest_becomes_further_utterances() -> None:
    answering = Answering("the dog said 123456, 123456, hello 123456 and good day. Hello", longest=40)
    texts = [text for text, _ in answering.sentences()]
    assert len(texts) > 4 and all(len(text) <= 60 for text in texts[1:]) and texts[-1] == "Hello"
    assert " ".join(texts).count("one hundred and twenty three thousand") == 3
    assert answering.live.spoken == " ".join(texts)


def test_marks_are_those_that_the_tts_knows_with_the_states_of_their_tokens() -> None:
    learned = frozenset("abcdefghijklmnopqrstuvwxyz ,.'")
    answering = Answering("the lazy-dog: hello — “good” day")
    answering.live._rereading = Rereading(
        answering.llm, Reading("english", characters=learned), lambda: answering.head, answering.live._tokens.ids
    )
    ((text, tokens),) = answering.sentences()
    assert text == "the lazy dog, hello , good day"
    spans = byte_spans(answering.llm.tokenizer, answering.ids, "the lazy-dog: hello — “good” day")
    base = len("the lazy-dog: hello — “good”".encode())
    own = [(start + base, end + base) for start, end in TTS.encode(" day")[1]]
    expected = bind(answering.states, cover(spans, own))
    torch.testing.assert_close(states_of(tokens)[-len(own) :], expected)


def test_plain_sentences_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answering = Answering("hello there, the dog isn't lazy. good day!")
    monkeypatch.setattr(answering.llm, "read", lambda *_: pytest.fail("read again"))
    assert len(answering.sentences()) == 2


# --- an answer that is cut off


def test_an_answer_is_cut_at_its_last_sentence_end() -> None:
    answer = "Hello dog. The fox said good day and"
    whole = len(make_llm().tokenize(answer))
    cut = Answering(answer, limit=whole)
    assert [text for text, _ in cut.sentences()] == ["Hello dog."] and cut.live.dropped == "The fox said good day and"
    ended = Answering(answer, limit=whole + 1)
    assert len(ended.sentences()) == 2 and ended.live.dropped == ""
    only = Answering("the fox said good", limit=len(make_llm().tokenize("the fox said good")))
    assert [text for text, _ in only.sentences()] == ["the fox said good"]
    complete = Answering("Hello dog. Good day.", limit=len(make_llm().tokenize("Hello dog. Good day.")))
    assert len(complete.sentences()) == 2 and complete.live.dropped == ""


def scripted(voice: Voice, monkeypatch: pytest.MonkeyPatch, answer: str) -> list[Any]:
    """Makes the voice's LLM say a text; gives the conversations that it was asked."""
    asked: list[Any] = []

    def generate(messages: Any, *_: Any) -> Iterator[GeneratedToken]:
        asked.append(messages)
        head, ids = voice.llm.chat_ids(messages), voice.llm.tokenize(answer)
        states = voice.llm.read([head + ids])[0][len(head) :]
        for token, state in zip(ids, states, strict=True):
            yield GeneratedToken(token, token_bytes(voice.llm.tokenizer)(token), state)

    monkeypatch.setattr(voice.llm, "generate", generate)
    return asked


def test_a_voice_says_so_when_an_answer_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer = "Hello dog. The fox"
    voice = make_voice(context="chat", normalise="english", max_new_tokens=len(make_llm().tokenize(answer)))
    scripted(voice, monkeypatch, answer)
    with caplog.at_level(logging.WARNING):
        assert voice.chat(QUESTION).text == "Hello dog."
    assert "max_new_tokens" in caplog.text


def test_a_voice_speaks_figures_of_an_answer_as_words(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = make_voice(context="chat", normalise="english", layout="streaming", max_frames=60)
    scripted(voice, monkeypatch, "the dog has 22 **dogs**.")
    assert voice.chat(QUESTION).text == "the dog has twenty two dogs."
    plain = make_voice(context="chat", layout="streaming", max_frames=60)
    scripted(plain, monkeypatch, "the dog has 22 **dogs**.")
    assert plain.chat(QUESTION).text == "the dog has 22 dogs."


def test_the_system_prompt_comes_first_unless_the_conversation_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = make_voice(context="chat", system="Be brief.")
    asked = scripted(voice, monkeypatch, "hello")
    voice.chat(QUESTION)
    own = [{"role": "system", "content": "Sing."}, *QUESTION]
    voice.chat(own)
    assert asked == [[{"role": "system", "content": "Be brief."}, *QUESTION], own]


def test_a_template_without_a_system_role_gets_it_in_the_first_message(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = make_voice(context="chat", system="Be brief.")
    asked = scripted(voice, monkeypatch, "hello")
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    monkeypatch.setattr(voice.llm.tokenizer, "chat_template", refusing + voice.llm.tokenizer.chat_template)
    voice.chat(QUESTION)
    assert asked == [[{"role": "user", "content": "Be brief.\n\nhello dog"}]]
