"""Word errors, intervals and systems of the evaluation, against independent computations and real speech."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("jiwer", reason="needs the extra `eval`")
pytest.importorskip("pocketsphinx", reason="needs the extra `eval`")

from audio_projection.config import Config
from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation import systems
from audio_projection.evaluation.bootstrap import PairedBootstrap
from audio_projection.evaluation.comparison import SystemResult
from audio_projection.evaluation.evaluate import evaluate
from audio_projection.evaluation.listening import Listeners
from audio_projection.evaluation.recognisers import PocketSphinx, Whisper
from audio_projection.evaluation.report import EvaluationReport, EvaluationResult, Recognition
from audio_projection.evaluation.sentence_sets import ROBUSTNESS, read_sentences
from audio_projection.evaluation.spectral_distance import Distances
from audio_projection.evaluation.word_errors import normalise, word_errors, wrong_words
from audio_projection.files import audio
from helpers.evaluation import save_tiny

WORDS = st.lists(st.sampled_from(["the", "dog", "a", "cat's", "river", "ran"]), max_size=7)


def edit_distance(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    """Levenshtein's distance by its definition."""

    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        changed = distance(i - 1, j - 1) + (left[i - 1] != right[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, changed)

    return distance(len(left), len(right))


@settings(max_examples=100, deadline=None)
@given(WORDS.filter(bool), WORDS)
def test_word_errors_are_the_edit_distance(reference: list[str], hypothesis: list[str]) -> None:
    found = word_errors(" ".join(reference), " ".join(hypothesis))
    assert found.errors == edit_distance(tuple(reference), tuple(hypothesis))
    assert found.words == len(reference)
    assert found.words - found.deletions + found.insertions == len(hypothesis)


@settings(max_examples=100, deadline=None)
@given(WORDS.filter(bool), WORDS)
def test_wrong_words_are_those_that_were_not_heard(reference: list[str], hypothesis: list[str]) -> None:
    found, wrong = (
        word_errors(" ".join(reference), " ".join(hypothesis)),
        wrong_words(" ".join(reference), " ".join(hypothesis)),
    )
    assert len(wrong) == len(reference) and sum(wrong) == found.substitutions + found.deletions
    assert {word for word, flag in zip(reference, wrong, strict=True) if not flag} <= set(hypothesis)


def test_word_errors_add_up() -> None:
    total = word_errors("one two three", "one two") + word_errors("four", "four five six")
    assert (total.deletions, total.insertions, total.words, total.rate) == (1, 2, 4, 0.75)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He said: “Don’t!”", "he said don't"),
        ("‘Well,’ she  said -- 'no'.", "well she said no"),
        ("rifle-shot", "rifle shot"),
        ("...", ""),
    ],
)
def test_normalised_text_has_letters_and_inner_apostrophes(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_reference_without_words_is_refused() -> None:
    with pytest.raises(AudioProjectionError, match="no words to compare"):
        word_errors("数字!", "forty two")


def test_interval_is_that_of_all_possible_draws() -> None:
    words, errors = np.array([4, 9, 5]), np.array([4, 0, 1])
    draws = [list(draw) for draw in itertools.product(range(3), repeat=3)]
    rates = np.sort([errors[draw].sum() / words[draw].sum() for draw in draws])
    found = PairedBootstrap(words.tolist(), samples=50_000).rates(errors.tolist())
    for rate in np.unique(rates):
        exact, drawn = (rates <= rate + 1e-9).mean(), (found <= rate + 1e-9).mean()
        assert drawn == pytest.approx(exact, abs=0.01)


def test_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        errors = generator.binomial(8, 0.3, 60)
        low, high = PairedBootstrap([8] * 60, samples=500, seed=trial).interval(errors.tolist())
        covered += low <= 0.3 <= high
    assert 178 <= covered <= 200


def test_difference_is_paired() -> None:
    generator = np.random.default_rng(1)
    baseline = generator.integers(0, 9, 50)
    bootstrap = PairedBootstrap([10] * 50, seed=3)
    low, high = bootstrap.difference((baseline + 1).tolist(), baseline.tolist())
    assert low == pytest.approx(0.1) and high == pytest.approx(0.1)
    apart = bootstrap.interval((baseline + 1).tolist())[0] - bootstrap.interval(baseline.tolist())[1]
    assert apart < 0 < low


def test_bootstrap_is_seeded() -> None:
    words, errors = [5, 6, 7, 8], [1, 3, 0, 2]
    first, again, other = (PairedBootstrap(words, 300, seed).rates(errors) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("values", [[4.0, 9.0, 5.0], [4.0, 9.0, 5.0, 5.5]])
def test_interval_of_a_median_is_that_of_all_possible_draws(values: list[float]) -> None:
    count = len(values)
    drawn = itertools.product(range(count), repeat=count)
    medians = np.sort([np.median(np.take(values, draw)) for draw in drawn])
    for confidence in (0.5, 0.8):
        low, high = PairedBootstrap([1] * count, 50_000, confidence=confidence).median_interval(values)
        ends = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
        assert (low, high) == pytest.approx(ends.tolist())


def make_result(name: str, texts: list[str], transcripts: list[str], seconds: float) -> EvaluationResult:
    errors = [word_errors(text, words) for text, words in zip(texts, transcripts, strict=True)]
    heard = {"pocketsphinx": Recognition(transcripts, errors)}
    return EvaluationResult(name, "", heard, [seconds] * len(texts), [True] * len(texts))


def test_report_compares_systems_with_plain_and_teacher() -> None:
    texts = ["one two three four", "five six"]
    results = [
        make_result("teacher", texts, texts, 2.0),
        make_result("plain", texts, ["one two three", "five six"], 3.0),
        make_result("linear", texts, ["one two", "five"], 4.0),
        EvaluationResult("residual", "", missing="not trained"),
    ]
    results[2].distances = [Distances(5.0, 8.0), Distances(6.0, 9.0)]
    teacher, plain, linear, residual = EvaluationReport(texts, results, seed=0).to_json()["rows"]
    assert teacher["word_error_rate"] == 0 and plain["word_error_rate"] == pytest.approx(1 / 6)
    assert plain["minus_plain"] is None and linear["minus_plain"][0] == pytest.approx(2 / 6)
    assert teacher["minus_teacher"] is None and linear["minus_teacher"][0] == pytest.approx(3 / 6)
    for difference in (linear["minus_plain"], linear["minus_teacher"]):
        assert difference[1] <= difference[0] <= difference[2]
    assert (plain["duration_ratio"], linear["duration_ratio"]) == (1.5, 2.0)
    assert plain["mel_cepstral_distance"] is None
    assert linear["mel_cepstral_distance"] == (5.5, 5.0, 6.0) and linear["log_spectral_distance"][0] == 8.5
    assert residual == {"name": "residual", "meaning": "", "missing": "not trained"}


def test_tables_fit_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    texts = ["one two three four five six seven eight nine ten"] * 30
    wrong = [" ".join(["no"] * (11 + index % 9)) for index in range(30)]
    results = [make_result(name, texts, wrong, 2.0) for name in ("teacher", "plain", "residual")]
    for result in results[1:]:
        result.distances = [Distances(12.345 + index, 23.456 + index) for index in range(30)]
    for table in EvaluationReport(texts, results, seed=0).tables():
        Console(width=80).print(table)
    shown = capsys.readouterr().out
    assert "…" not in shown and "147.0 [138.0, 156.3]" in shown and "+0.0 [0.0, 0.0]" in shown


def test_held_out_sentences_are_found_and_usable() -> None:
    texts, others = read_sentences(), read_sentences(own=ROBUSTNESS)
    assert len(texts) == 300 and len(others) == 200 and len({normalise(text) for text in texts + others}) == 500
    assert read_sentences(limit=2) == texts[:2]
    lengths = [len(text.split()) for text in others]
    assert set(lengths) == set(range(3, 26)) and min(map(lengths.count, lengths)) >= 7
    for text in texts + others:
        assert 3 <= len(text.split()) <= 25 and re.fullmatch(r"[A-Za-z .,'?!]+", text), text


def test_sentences_are_in_no_training_text(shared: Path, repository: Path) -> None:
    def letters(text: str) -> str:
        return re.sub("[^a-z]", "", text.lower())

    prompts = (shared / "data" / "text" / "prompts.tsv").read_text(encoding="utf-8").splitlines()
    nano = (repository / "src/audio_projection/nano/texts.txt").read_text(encoding="utf-8").splitlines()
    learned = {letters(line.rpartition("\t")[2]) for line in prompts + nano}
    assert not learned & {letters(text) for text in read_sentences() + read_sentences(own=ROBUSTNESS)}


@pytest.mark.parametrize(("content", "message"), [("", "no sentences"), ("数字\n", "no words"), (None, "cannot read")])
def test_unusable_sentence_files_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "sentences.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AudioProjectionError, match=message):
        read_sentences(path)


def test_unknown_system_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(AudioProjectionError, match="unknown system 'flat'"):
        evaluate(Config(output_dir=tmp_path), systems=["flat"])


def make_folder(folder: Path) -> str:
    folder.mkdir(parents=True)
    (folder / "projector.json").touch()
    return str(folder)


def test_systems_of_folders_have_names_that_differ(tmp_path: Path) -> None:
    first, second = (make_folder(tmp_path / run / "linear" / "projector") for run in ("a", "b"))
    linear = make_folder(tmp_path / "c" / "linear")

    def names(*chosen: str) -> list[str]:
        return [system.name for system in systems.name_systems(chosen)]

    assert names("plain", first) == ["plain", "projector"]
    assert names(first, second) == ["a-linear-projector", "b-linear-projector"]
    assert names("linear", linear) == ["linear", "c-linear"]
    assert [system.projector for system in systems.name_systems(["linear", linear, "plain"])] == [
        "linear",
        linear,
        None,
    ]
    shipped = make_folder(tmp_path / "shipped" / "linear")
    assert names("shipped/linear", shipped) == ["shipped-linear", f"{tmp_path.name}-shipped-linear"]
    assert [system.projector for system in systems.name_systems(["shipped/linear"])] == ["shipped/linear"]
    exported = tmp_path / "exported" / "projector.gguf"
    exported.parent.mkdir()
    exported.touch()
    assert names(str(exported)) == ["projector.gguf"]
    for twice in (["plain", "plain"], [first, f"{first}/."]):
        with pytest.raises(AudioProjectionError, match="twice"):
            names(*twice)


def test_a_projectors_layer_and_training_are_in_the_caption() -> None:
    fitted = {"projector": {"layers": [1], "steps": 0, "measurements": {"fit": {}}}}
    trained = {"projector": {"layers": [1, 3], "steps": 40, "measurements": {}}, "share_from_states": 0.25}
    assert SystemResult("linear", "states", notes=fitted).remark == "states; layer 1; fit only"
    remark = SystemResult("residual", "both", notes=trained).remark
    assert remark == "both; layers 1, 3; 40 steps; 25.0 % of the embedding from the states"
    assert SystemResult("plain", "text embeddings", notes=fitted).remark == "text embeddings"


@pytest.fixture(scope="module")
def recordings(shared: Path) -> list[tuple[str, np.ndarray]]:
    """(text, samples at 22,050 Hz) of a few real recordings."""
    folder = shared / "data" / "corpora" / "LJSpeech-1.1"
    lines = [line.split("|") for line in (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()]
    chosen = [lines[1], lines[7], lines[3]]
    return [(text, audio.read(folder / "wavs" / f"{name}.wav", 22_050)) for name, _, text in chosen]


def test_real_speech_is_recognised(recordings: list[tuple[str, np.ndarray]]) -> None:
    recognizer = PocketSphinx()
    heard = [recognizer.transcribe(samples, 22_050) for _, samples in recordings]
    first, *rest = (word_errors(text, words) for (text, _), words in zip(recordings, heard, strict=True))
    # These clips score 21 %; a wrong rate, scale or order of samples gives 80 % and more.
    assert sum(rest, first).rate < 0.4
    backwards = word_errors(recordings[0][0], recognizer.transcribe(recordings[0][1][::-1], 22_050))
    assert backwards.rate > 0.8
    # A transcript depends neither on earlier recordings nor on the process.
    with Listeners({"pocketsphinx": recognizer.transcribe}, 1) as listeners:
        assert listeners.submit("pocketsphinx", recordings[0][1], 22_050).result() == heard[0]
    assert recognizer.transcribe(recordings[0][1], 22_050) == heard[0]


def test_judgements_outlive_a_run_that_was_stopped(tmp_path: Path) -> None:
    """A recording that was heard is not heard again, and half a line at the end of the file does no harm."""
    kept, sound = tmp_path / "judgements.jsonl", np.linspace(-0.5, 0.5, 1_600, dtype=np.float32)
    with Listeners({"peak": peak}, 1, kept) as listeners:
        assert [listeners.submit("peak", each, 16_000).result() for each in (sound, -2 * sound)] == [0.5, 1.0]
    lines = kept.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    kept.write_bytes(lines[0] + lines[1][:-9])
    with Listeners({"peak": deaf}, 1, kept) as listeners:
        assert listeners.submit("peak", sound, 16_000).result() == 0.5
        with pytest.raises(RuntimeError, match="asked again"):
            listeners.submit("peak", -2 * sound, 16_000).result()
        with pytest.raises(RuntimeError, match="asked again"):
            listeners.submit("peak", sound, 24_000).result()
    assert kept.read_bytes() == lines[0]


def peak(samples: np.ndarray, rate: int) -> float:
    return float(np.abs(samples).max())


def deaf(samples: np.ndarray, rate: int) -> float:
    raise RuntimeError("asked again")


def test_whisper_says_which_model_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper", reason="needs the extra `whisper`")
    with pytest.raises(AudioProjectionError, match=r"cannot load the Whisper model .*empty: .*; give --whisper-model"):
        Whisper(str(tmp_path / "empty")).check()


def test_whispers_normaliser_is_applied_to_both_sides() -> None:
    pytest.importorskip("whisper_normalizer", reason="needs the extra `whisper`")
    errors = word_errors("Mr. Lee won't pay twenty-two dollars.", "mister Lee will not pay $22", Whisper().normalise)
    assert errors.errors == 0 and errors.words == 6


def test_two_recognisers_and_the_naturalness_stand_side_by_side() -> None:
    texts = ["one two three four", "five six"]
    plain, linear = make_result("plain", texts, texts, 2.0), make_result("linear", texts, ["one", "five six"], 2.0)
    for result, heard in ((plain, ["one two three", "five six"]), (linear, texts)):
        errors = [word_errors(text, words) for text, words in zip(texts, heard, strict=True)]
        result.recognitions["whisper"] = Recognition(heard, errors)
        result.naturalness = [{"P808": 3.0, "OVRL": 2.0}, {"P808": 4.0, "OVRL": 2.0}]
    report = EvaluationReport(texts, [plain, linear], seed=0)
    kept = report.to_json()
    assert kept["recognisers"] == ["pocketsphinx", "whisper"]
    assert kept["rows"][1]["word_error_rate"] == 0.5
    other = kept["rows"][1]["other_recognisers"]["whisper"]
    assert other["word_error_rate"] == 0 and other["minus_plain"][0] == pytest.approx(-1 / 6)
    assert kept["rows"][0]["dnsmos"] == {"P808": (3.5, 3.0, 4.0), "OVRL": (2.0, 2.0, 2.0)}
    titles = [str(table.title) for table in report.tables()]
    assert ["by pocketsphinx" in titles[0], "by whisper" in titles[1], "DNSMOS" in titles[3]] == [True] * 3


def test_no_samples_are_no_words() -> None:
    assert PocketSphinx().transcribe(np.zeros(0, np.float32), 24_000) == ""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def test_run_measures_speaks_and_reports(tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentences = tmp_path / "two.txt"
    sentences.write_text("hello there\nThe lazy dog. Good day.\n")
    folder = str(tiny.output_dir / "linear" / "projector")
    report = evaluate(tiny, sentences, ["plain", "residual", "shuffled", folder], tmp_path / "out", jobs=1)
    results = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [row["name"] for row in results] == ["plain", "residual", "shuffled", "projector"]
    plain, residual, _, linear = results
    for system, kept in zip(report.systems, results, strict=True):
        assert kept["word_error_rate"] == system.word_error_rate
        wavs = [audio.read(tmp_path / "out" / system.name / f"000{n}.wav", 24_000) for n in (1, 2)]
        assert [len(wav) / 24_000 for wav in wavs] == system.seconds
    # An untrained residual projector is the TTS fed with plain text.
    assert residual["share_from_states"] == 0 and residual["heard"] == plain["heard"]
    # Random weights never end their speech: the guard stops each sentence after 11 frames.
    assert plain["ended"] == 0 and plain["seconds"] == pytest.approx([11 / 12.5, 22 / 12.5])
    assert linear["projector"]["kind"] == "linear" and residual["projector"]["kind"] == "residual"
    assert "word error rate, 2 sentences of 7 words" in capsys.readouterr().out
    # Nothing is compared with a teacher that is not among the systems.
    assert plain["minus_teacher"] is None and plain["mel_cepstral_distance"] is None and plain["distances"] == []
    for number in (1, 2):
        assert (tmp_path / "out" / f"spectrogram-000{number}.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out" / "spectrogram-0003.png").exists()


def test_systems_that_cannot_speak_say_why(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sentences = tmp_path / "one.txt"
    sentences.write_text("hello there\n")
    monkeypatch.setattr(systems.shutil, "which", lambda _: None)
    report = evaluate(tiny, sentences, ["teacher", "linear"], jobs=1)
    assert [bool(system.recognitions) for system in report.systems] == [False, True]
    assert "flite is not installed" in capsys.readouterr().out
    with pytest.raises(AudioProjectionError, match="no system could be measured: flite"):
        evaluate(tiny, sentences, ["teacher", "codec"], jobs=1)


def test_a_kind_is_the_projector_that_speak_would_take(tiny: Config) -> None:
    """The rule of `find_projector`: a system named by a kind does not depend on projector.path."""
    sources = systems.SpeechSources(tiny, ["hello there"])
    assert sources.voice(None) is sources.voice("linear"), "one projector is loaded once"
    given = tiny.projector.model_copy(update={"path": tiny.output_dir / "residual" / "projector"})
    sources = systems.SpeechSources(tiny.model_copy(update={"projector": given}), ["hello there"])
    kinds = [sources.voice(choice).projector.info.kind for choice in (None, "linear", "residual")]
    assert kinds == ["residual", "linear", "residual"]


needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


@needs_flite
def test_systems_are_compared_with_the_teacher(tiny: Config, tmp_path: Path) -> None:
    sentences = tmp_path / "three.txt"
    sentences.write_text("The dog slept.\nA cat ran home.\nGood day.\n")
    report = evaluate(tiny, sentences, ["teacher", "plain"], jobs=1, limit=2)
    assert report.sentences == ["The dog slept.", "A cat ran home."]
    teacher, plain = report.to_json()["rows"]
    assert teacher["mel_cepstral_distance"] is None and teacher["duration_ratio"] == 1
    # Random weights are further from it than any speaker is.
    assert plain["mel_cepstral_distance"][0] > 8 and plain["log_spectral_distance"][0] > 8
    assert plain["minus_teacher"][0] == pytest.approx(plain["word_error_rate"] - teacher["word_error_rate"])


@needs_flite
def test_teacher_speaks_and_its_silence_is_cut() -> None:
    text = "The old dog slept beside the warm stove."
    utterance = next(iter(systems.SpeechSources(Config(), [text]).teacher()))
    assert 1.5 < len(utterance.samples) / utterance.rate < 4
    assert np.abs(utterance.samples[-1_919:]).max() <= 200 / 32768 < np.abs(utterance.samples[-1_920])
    assert word_errors(text, PocketSphinx().transcribe(utterance.samples, utterance.rate)).rate < 0.4
