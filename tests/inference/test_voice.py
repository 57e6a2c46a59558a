"""Voice: speaking texts and LLM answers, with tiny random models."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from audio_projection.alignment.align import Overlap, align, bind
from audio_projection.alignment.controls import as_long_as, shuffled
from audio_projection.alignment.token_states import token_states
from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio
from audio_projection.inference import Voice
from audio_projection.projector import Projector
from audio_projection.sampling import Choice, Sampling
from audio_projection.text.token_spans import byte_spans
from audio_projection.tts.generate import generate
from audio_projection.tts.prompt import language_name
from helpers import parity_kit
from helpers.answers import QUESTION, scripted
from helpers.tiny_llm import make_model, make_tokenizer
from helpers.training import make_config, parity_file
from helpers.voices import make_voice

TEXT = "hello there the quick brown fox"
GREEDY = Sampling.greedy()
CONFIG = make_config(Path("unused"))


def reference(voice: Voice, embeddings: torch.Tensor, layout: str = "nonstreaming") -> np.ndarray:
    """Speech of text embeddings (N, H) by the functions for whole utterances, without streaming."""
    prompt = (voice.tts.prefix("ada", "english"), embeddings)
    codes = generate(voice.tts, [prompt], layout, GREEDY, max_frames=voice.defaults.max_frames)[0]
    return voice.tts.codec.decode(codes).numpy()


def tokens_of(voice: Voice, text: str = TEXT) -> Any:
    return token_states(voice.llm, voice.tts, [text])[0]


@pytest.mark.parametrize("layout", ["streaming", "nonstreaming"])
@pytest.mark.parametrize("kind", ["linear", "residual"])
def test_speech_is_that_of_the_projected_states(kind: str, layout: str) -> None:
    voice = make_voice(kind, layout=layout)
    if kind == "residual":
        torch.nn.init.normal_(voice.projector.gate)  # type: ignore[attr-defined]
    speech = voice.speak(TEXT)
    found = tokens_of(voice)
    assert speech.samples.dtype == np.float32 and speech.sample_rate == voice.tts.sample_rate
    assert len(speech.samples) == 6 * voice.tts.samples_per_frame and speech.text == TEXT
    expected = reference(voice, voice.projector(found.states, found.text_embeddings), layout)
    np.testing.assert_allclose(speech.samples, expected, atol=1e-5)


def test_the_whole_is_the_stream_put_together() -> None:
    voice = make_voice(chunks=(1, 2))
    chunks = list(voice.stream(TEXT))
    assert [len(chunk) // voice.tts.samples_per_frame for chunk in chunks] == [1, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(chunks), voice.speak(TEXT).samples)


def test_chunks_grow_where_a_text_is_read_and_stay_short_in_an_answer() -> None:
    voice = make_voice(context="chat", max_frames=30, max_new_tokens=5)
    frames = [len(chunk) // voice.tts.samples_per_frame for chunk in voice.stream(TEXT)]
    assert frames == [1, 2, 4, 8, 12, 3]
    answered = [len(chunk) // voice.tts.samples_per_frame for chunk in voice.chat_stream(QUESTION, seed=0)]
    assert len(answered) > 2 and answered[:3] == [1, 2, 4] and set(answered) <= {1, 2, 4, 3}


def test_plain_speaks_the_text_embeddings_and_an_untrained_residual_is_the_same() -> None:
    linear, residual = make_voice(), make_voice("residual")
    plain = linear.speak(TEXT, control="plain").samples
    np.testing.assert_allclose(plain, reference(linear, tokens_of(linear).text_embeddings), atol=1e-5)
    np.testing.assert_array_equal(residual.speak(TEXT).samples, plain)
    assert not np.array_equal(linear.speak(TEXT).samples, plain)


def test_controls_speak_other_states() -> None:
    voice = make_voice()
    found = tokens_of(voice)
    spoken = {control: voice.speak(TEXT, control=control).samples for control in (None, "shuffled", "other")}
    permuted = voice.projector(shuffled(found.states, 0), found.text_embeddings)
    np.testing.assert_allclose(spoken["shuffled"], reference(voice, permuted), atol=1e-5)
    assert not any(np.array_equal(spoken[None], spoken[control]) for control in ("shuffled", "other"))


def test_shuffling_moves_every_state_and_loses_none() -> None:
    states = torch.arange(7.0)[:, None, None]
    permuted = shuffled(states, 3)
    assert (permuted != states).all() and permuted.flatten().sort().values.equal(states.flatten())
    assert shuffled(states[:1], 3).equal(states[:1])
    assert as_long_as(states[:3], 5).flatten().tolist() == [0, 1, 2, 0, 1] and len(as_long_as(states, 2)) == 2


def test_seeds_repeat_and_differ() -> None:
    voice = make_voice(sampling=Sampling())
    first, again, other = (voice.speak(TEXT, seed=seed).samples for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_long_text_is_spoken_sentence_by_sentence() -> None:
    voice = make_voice(longest=20)
    speech = voice.speak("hello dog. The quick brown fox said hello! 👍 ... good day")
    pieces = ["hello dog.", "The quick brown fox", "said hello!", "👍 ... good day"]
    expected = np.concatenate([voice.speak(piece).samples for piece in pieces])
    np.testing.assert_array_equal(speech.samples, expected)


def test_many_texts_are_spoken_at_once_each_as_alone() -> None:
    voice = make_voice(longest=20, slots=3, sampling=Sampling())
    texts = ["hello dog. The quick brown fox said hello!", "good day", "the fox. the dog. hello there.", TEXT, "hello"]
    spoken = list(voice.speak_all(iter(texts), seeds=range(5)))
    assert [speech.text for speech in spoken] == texts and not any(speech.ended for speech in spoken)
    for number, speech in enumerate(spoken):
        np.testing.assert_array_equal(speech.samples, voice.speak(texts[number], seed=number).samples)
    with pytest.raises(AudioProjectionError, match="nothing to speak"):
        list(voice.speak_all(["hello", "!?"]))
    each = list(voice.speak_each(["hello", "!?", "good day", "..."], seeds=[1, 2, 3, 4]))
    assert [isinstance(one, AudioProjectionError) for one in each] == [False, True, False, True]
    np.testing.assert_array_equal(each[2].samples, voice.speak("good day", seed=3).samples)
    assert list(voice.speak_all([])) == []


def test_a_stream_that_is_dropped_frees_its_slot() -> None:
    voice = make_voice()
    dropped, closed = voice.stream(TEXT), voice.stream(TEXT)
    next(dropped), next(closed)
    engine = voice._current_engine()
    assert engine.active == 2
    del dropped
    gc.collect()
    assert engine.active == 1
    closed.close()
    assert engine.active == 0 and list(closed) == []


def test_the_first_chunk_comes_before_the_second_sentence_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = make_voice()
    read: list[str] = []
    states = voice.llm.states
    monkeypatch.setattr(voice.llm, "states", lambda texts: read.extend(texts) or states(texts))
    next(voice.stream("hello dog. Good day."))
    assert read == ["hello dog."]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "nothing to speak"),
        ("!?", {}, "nothing to speak"),
        ("a\0", {}, "NUL"),
        (TEXT, {"control": "mixed"}, "choose one of plain, shuffled, other"),
        (TEXT, {"voice": "eve"}, "unknown speaker 'eve'"),
        (TEXT, {"language": "klingon"}, "unknown language 'klingon'"),
    ],
)
def test_errors_are_raised_before_any_work(text: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(AudioProjectionError, match=words):
        make_voice().stream(text, **options)


def test_the_voice_comes_from_the_call_the_settings_or_the_projector() -> None:
    voice = make_voice()
    by_call, by_settings = voice.speak(TEXT, voice="bo").samples, voice.speak(TEXT).samples
    assert not np.array_equal(by_call, by_settings)
    silent = make_voice(speaker=None)
    with pytest.raises(AudioProjectionError, match="no voice.*ada, bo"):
        silent.speak(TEXT)
    silent.projector.set_voice("bo")
    np.testing.assert_array_equal(silent.speak(TEXT).samples, by_call)


def test_a_base_voice_from_a_recording(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    audio.write(tmp_path / "reference.wav", noise, 24_000)
    voice = make_voice(tts="base", speaker=None)
    with pytest.raises(AudioProjectionError, match="--ref-audio"):
        voice.speak(TEXT)
    vector = voice.embed_reference(tmp_path / "reference.wav")
    spoken = voice.speak(TEXT, voice=vector).samples
    voice.projector.set_voice(vector)
    np.testing.assert_array_equal(voice.speak(TEXT).samples, spoken)
    with pytest.raises(AudioProjectionError, match="custom_voice TTS cannot take its voice from a recording"):
        make_voice().embed_reference(tmp_path / "reference.wav")


@pytest.mark.parametrize(("case", "layout"), [("stream", "streaming"), ("nonstream_b2", "nonstreaming")])
def test_a_recording_is_continued_as_the_official_package_does(case: str, layout: str, tmp_path: Path) -> None:
    official, path = parity_kit.reference("tiny_base"), tmp_path / "reference.wav"
    soundfile.write(path, official["ref.wav"].numpy(), 24_000, subtype="FLOAT")
    voice = make_voice(tts="base", speaker=None, layout=layout, max_frames=24, sampling=Sampling.greedy(1.05))
    spoken = voice.speak(TEXT, voice=voice.reference(path, "the dog"), control="plain").samples
    excerpts = {key: value.numpy() for key, value in official.items() if key.startswith(f"{case}.wav.0@")}
    assert len(excerpts) == 2
    for key, excerpt in excerpts.items():
        start = int(key.partition("@")[2])
        np.testing.assert_allclose(spoken[start : start + len(excerpt)], excerpt, atol=1e-4)
    # with the voice alone, or after other words, it is something else
    for other in (voice.embed_reference(path), voice.reference(path, "the fox")):
        assert np.abs(voice.speak(TEXT, voice=other, control="plain").samples[:9_600] - spoken[:9_600]).max() > 1e-3


def test_silence_after_a_recording_is_encoded_with_it(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    audio.write(tmp_path / "reference.wav", noise, 24_000)
    voice = make_voice(tts="base", speaker=None)
    plain, longer = (voice.reference(tmp_path / "reference.wav", "the dog", seconds) for seconds in (0.0, 0.48))
    assert len(longer.codes) == len(plain.codes) + 6 and torch.equal(longer.voice, plain.voice)
    assert torch.equal(longer.codes[:10], plain.codes[:10])


@pytest.mark.parametrize(
    ("given", "name"),
    [("de-AT", "german"), ("Deutsch", "german"), ("zh_Hans_CN", "chinese"), ("cmn", "chinese"), ("中文", "chinese")]
    + [("pt-BR", "portuguese"), ("Français", "french"), ("РУССКИЙ", "russian"), ("jpn", "japanese")]
    + [("auto", "auto"), ("Klingon", "klingon"), ("Beijing_dialect", "beijing_dialect")],
)
def test_languages_by_codes_and_by_their_own_names(given: str, name: str) -> None:
    assert language_name(given) == name


@pytest.mark.parametrize("language", ["en", "EN", "en-US", "en_GB", "English", "english"])
def test_languages_by_code(language: str) -> None:
    voice = make_voice()
    expected = voice.tts.prefix("ada", "english")
    assert torch.equal(voice.tts.prefix("ada", language), expected)
    assert not torch.equal(voice.tts.prefix("ada", "zh-Hans"), expected)
    with pytest.raises(AudioProjectionError, match="unknown language 'fr-FR'; choose one of auto, "):
        voice.tts.prefix("ada", "fr-FR")


def test_an_answer_continues_a_recording_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    audio.write(tmp_path / "reference.wav", noise, 24_000)
    voice = make_voice(tts="base", speaker=None, context="chat", layout="streaming", max_frames=24)
    scripted(voice, monkeypatch, "the dog said hello there")
    by_recording = voice.chat(QUESTION, voice=voice.reference(tmp_path / "reference.wav", "the dog"))
    scripted(voice, monkeypatch, "the dog said hello there")
    by_voice = voice.chat(QUESTION, voice=voice.embed_reference(tmp_path / "reference.wav"))
    assert by_recording.text == by_voice.text and not np.array_equal(by_recording.samples, by_voice.samples)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"context": "chat"}, "llm.context 'chat', the language model is set to 'raw'"),
        ({"layers": [1, 4]}, r"llm.layers \[1, 4\]"),
        ({"llm_tokenizer_hash": "0" * 64}, "LLM tokenizer differs"),
        ({"tts_tokenizer_hash": "0" * 64}, "TTS tokenizer differs"),
        ({"llm_size": 33}, "LLM hidden size differs"),
    ],
)
def test_a_projector_of_other_models_is_refused(change: dict[str, Any], words: str) -> None:
    voice = make_voice()
    for key, value in change.items():
        setattr(voice.projector.info, key, value)
    with pytest.raises(AudioProjectionError, match=words):
        Voice(voice.llm, voice.tts, voice.projector)


@pytest.mark.parametrize("layout", ["streaming", "nonstreaming"])
def test_an_answer_is_spoken_from_the_states_of_its_own_tokens(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = make_voice(context="chat", layout=layout, max_frames=24)
    answer = "the dog said hello there"
    scripted(voice, monkeypatch, answer)
    speech = voice.chat(QUESTION)
    head, ids = voice.llm.chat_ids(QUESTION), voice.llm.tokenize(answer)
    found = tokens_of(voice, answer)
    states = voice.llm.read([head + ids])[0][len(head) :]
    bound = bind(states, text_overlaps(voice, answer))
    expected = reference(voice, voice.projector(bound, found.text_embeddings), layout)
    assert speech.text == answer
    np.testing.assert_allclose(speech.samples, expected, atol=1e-4)


def text_overlaps(voice: Voice, text: str) -> list[Overlap]:
    ids = voice.llm.tokenize(text)
    return align(byte_spans(voice.llm.tokenizer, ids, text), voice.tts.tokenize(text)[1])


def test_an_answer_of_the_models_own_is_spoken() -> None:
    voice = make_voice(context="chat", max_new_tokens=30)
    speech = voice.chat(QUESTION, seed=0)
    tokens = voice.llm.generate(QUESTION, 30, None, None)
    text = b"".join(token.piece for token in tokens).decode(errors="ignore")
    assert speech.text and speech.text.replace(" ", "") in "".join(text.split())
    assert "\n" not in speech.text
    assert len(speech.samples) >= 6 * voice.tts.samples_per_frame


def test_in_the_streaming_layout_sound_comes_while_the_llm_is_answering(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = make_voice(context="chat", layout="streaming", chunks=(1,), max_frames=None)
    answer = "the quick brown fox jumps over the lazy dog and said good day and hello there"
    total, sounds = len(voice.llm.tokenize(answer)), threading.Event()

    def wait_for_sound(number: int) -> None:
        assert number + 1 < total / 3 or sounds.wait(60)

    generated = scripted(voice, monkeypatch, answer, wait_for_sound)
    speaking = voice.chat_stream(QUESTION)
    next(speaking)
    assert 0 < len(generated) < total / 3 and answer.startswith(speaking.text) and speaking.text != answer


def test_answers_without_words_and_projectors_without_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = make_voice(context="chat")
    scripted(voice, monkeypatch, "... !? 👍")
    with pytest.raises(AudioProjectionError, match="nothing to speak in it"):
        voice.chat(QUESTION)
    with pytest.raises(AudioProjectionError, match="context 'raw' and cannot chat"):
        make_voice().chat(QUESTION)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "nothing to answer"),
        ([{"role": "user", "content": "  "}], "nothing to answer"),
        ([{"role": "user"}], "needs a role and a content"),
        ([{"role": "user", "content": "a\0"}], "NUL"),
        (["hello"], "needs a role and a content"),
    ],
)
def test_refused_messages(messages: Any, words: str) -> None:
    with pytest.raises(AudioProjectionError, match=words):
        make_voice(context="chat").chat(messages)


def folder_config(folder: Path, **llm: Any) -> Config:
    config = make_config(folder / "run")
    make_model().save_pretrained(folder / "llm")
    make_tokenizer().save_pretrained(folder / "llm")
    config.llm.name = str(folder / "llm")
    config.tts.name = str(parity_file("tiny_custom_voice"))
    return config.model_copy(update={"llm": config.llm.model_copy(update=llm)})


def test_everything_from_a_configuration(tmp_path: Path) -> None:
    config = folder_config(tmp_path, layers="last", context="raw")
    with pytest.raises(AudioProjectionError, match="trained projector.*configs/nano.yaml"):
        Voice.from_config(config)
    trained = make_voice(context="chat", layers=[1, 3])
    trained.projector.save_pretrained(config.trained_projector)
    voice = Voice.from_config(config)
    assert voice.llm.layers == [1, 3] and voice.llm.context == "chat"  # as the projector was trained
    assert voice.defaults.speaker == "ada" and voice.defaults.layout == "nonstreaming"
    mine = Voice(voice.llm, voice.tts, Projector.from_pretrained(config.trained_projector), trained.defaults)
    np.testing.assert_allclose(mine.speak(TEXT).samples, trained.speak(TEXT).samples, atol=1e-4)


def test_overrides_need_a_file(tmp_path: Path) -> None:
    with pytest.raises(AudioProjectionError, match="overrides go with a configuration file"):
        Voice.from_config(make_config(tmp_path), ["seed=1"])


def test_llm_sampling_is_seeded() -> None:
    voice = make_voice(context="chat", max_new_tokens=12)
    wild = Choice(temperature=1.5, top_k=0)
    texts = []
    for seed in (1, 1, 2):
        answer = voice.chat_stream(QUESTION, seed=seed, sampling=wild)
        list(answer)
        texts.append(answer.text)
    assert texts[0] == texts[1] != texts[2]
