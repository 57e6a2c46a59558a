"""Feature extraction: the same files by any number of machines and after any kill; foreign folders are refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from audio_projection.alignment.align import align, bind
from audio_projection.config import Config, DataConfig, load_config
from audio_projection.data.corpora import extract as extraction
from audio_projection.data.corpora.encoder import RecordingEncoder
from audio_projection.data.corpora.extract import MachineShare, extract
from audio_projection.data.corpora.prepare import Corpus, prepare
from audio_projection.data.pairs import Pair, PairFolder
from audio_projection.data_loader import load_pairs
from audio_projection.errors import AudioProjectionError
from audio_projection.fit.assemble import new_projector
from audio_projection.models import Models
from audio_projection.train import run_training
from audio_projection.training.examples import StateSource
from helpers.corpora import assert_whole, contents, finished, manifest, run_killed
from helpers.nano import SPEAKER
from helpers.tiny_llm import make_llm
from helpers.training import load_tts, make_config, parity_file, save_llm

MARK = "part-*.json"


def nano_config(repository: Path, *words: str) -> Config:
    return load_config(repository / "configs/nano.yaml", ["llm.layers=1", "data.held_out=2", *words])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 recordings of noise, 9 of them fit, in 6 shards."""
    folder = tmp_path_factory.mktemp("corpus")
    prepare(Corpus("manifest", manifest(folder, 12)), folder / "prepared", DataConfig(), 2, 1)
    return folder / "prepared"


@pytest.fixture(scope="module")
def features(prepared: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Codes and states of them by nano."""
    out = tmp_path_factory.mktemp("features") / "out"
    extract(prepared, out, nano_config(repository), MachineShare(), 1, states=True)
    return out


@pytest.mark.posix
@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments_changes_nothing(
    prepared: Path, features: Path, repository: Path, tmp_path: Path, kills: int
) -> None:
    work = partial(extract, prepared, tmp_path, nano_config(repository), MachineShare(), 1, True)
    run_killed(work, tmp_path, MARK, kills, seed=kills)
    assert contents(tmp_path) == contents(features)
    assert not [*tmp_path.rglob(".part-*.tmp")]


def test_shares_of_many_machines_make_the_whole(
    prepared: Path, features: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = partial(extract, prepared, tmp_path, nano_config(repository), processes=1, states=True)
    assert "3 of 6 parts" in work(MachineShare.parse("2/2"))
    with pytest.raises(AudioProjectionError, match="3 of the 6 parts .* run `audio-projection data features` again"):
        PairFolder(tmp_path).read()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "9 pairs are in" in work(MachineShare.parse(None))
    assert contents(tmp_path) == contents(features)
    for text in ("0/2", "3/2", "2", "a/b"):
        with pytest.raises(AudioProjectionError, match="give for example 2/8"):
            MachineShare.parse(text)


def test_cached_states_are_those_of_the_llm(features: Path, repository: Path) -> None:
    from audio_projection.fit.assemble import assemble
    from audio_projection.models import load_llm, load_tts

    config = nano_config(repository, "data.source=pairs", f"data.path={features}")
    tts = load_tts(config)
    pairs = load_pairs(config, tts)
    assert len(pairs) == 9 and all(pair.voice == SPEAKER and pair.codes.dtype == torch.int16 for pair in pairs)
    models = assemble(config, tts, [])
    indices = list(range(9))
    kept = StateSource(models, pairs, config.train, config.tts.normalise).at(indices)
    uncached = [replace(pair, states=None) for pair in pairs]
    fresh = StateSource(models, uncached, config.train, config.tts.normalise).at(indices)
    computed = models.llm.states([pair.text for pair in pairs])
    for one, other, pair, encoded in zip(kept, fresh, pairs, computed, strict=True):
        assert one.ids == other.ids and torch.equal(one.text_embeddings, other.text_embeddings)
        assert pair.states is not None
        values = pair.states.values.float()
        torch.testing.assert_close(values, encoded.states, rtol=2**-8, atol=1e-3)  # bfloat16
        overlaps = align(encoded.spans, tts.tokenize(pair.text)[1])
        torch.testing.assert_close(other.states, bind(encoded.states, overlaps))
        assert torch.equal(one.states, bind(values, overlaps))
    for normalise, llm, words in (
        (config.tts.normalise, load_llm(nano_config(repository, "llm.layers=2")), "another layers .*now .2"),
        ("none", models.llm, "another tts.normalise"),
        (config.tts.normalise, make_llm(), "another language model than .*, or other weights of it "),
    ):
        with pytest.raises(AudioProjectionError, match=f"made with {words}.*data features"):
            StateSource(replace(models, llm=llm), pairs, config.train, normalise)


def test_codes_of_another_codec_are_refused(features: Path, prepared: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    config.data.source, config.data.path = "pairs", features
    with pytest.raises(AudioProjectionError, match="made with another codec .*data features"):
        load_pairs(config, load_tts())


def test_a_folder_made_otherwise_is_refused(prepared: Path, features: Path, repository: Path) -> None:
    before = contents(features)
    with pytest.raises(AudioProjectionError, match="made otherwise .states"):
        extract(prepared, features, nano_config(repository), MachineShare(), 1, states=False)
    with pytest.raises(AudioProjectionError, match="made otherwise .states: layers .1., now .2.*choose another folder"):
        extract(prepared, features, nano_config(repository, "llm.layers=2"), MachineShare(), 1, states=True)
    with pytest.raises(AudioProjectionError, match="llm.layers is probe"):
        extract(prepared, features, nano_config(repository, "llm.layers=probe"), MachineShare(), 1, states=True)
    assert contents(features) == before


def test_a_disk_too_small_is_noticed_before_the_work(
    prepared: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(AudioProjectionError, match="MB needed, 0.00 MB free.*leave --states out"):
        extract(prepared, tmp_path, nano_config(repository), MachineShare(), 1, states=True)
    assert not finished(tmp_path, MARK)


def test_recordings_that_vanished_are_named(prepared: Path, repository: Path, tmp_path: Path) -> None:
    sound = prepared.parent / "00.wav"
    content = sound.read_bytes()
    sound.unlink()
    try:
        said = extract(prepared, tmp_path, nano_config(repository), MachineShare(), 1, states=False)
    finally:
        sound.write_bytes(content)
    assert "8 pairs" in said and "1 left out" in said
    assert "00.wav\t" in (tmp_path / "dropped.tsv").read_text().splitlines()[1]


def test_a_base_model_keeps_x_vectors(prepared: Path, tmp_path: Path) -> None:
    """The encoders loaded without the talker give what the whole model gives."""
    config = make_config(tmp_path / "run")
    config.tts.name = str(parity_file("tiny_base"))
    extract(prepared, tmp_path / "out", config, MachineShare(), 1, states=False)
    config.data.source, config.data.path, config.tts.speaker = "pairs", tmp_path / "out", None
    pairs = load_pairs(config, load_tts("base"))
    assert len(pairs) == 9 and all(isinstance(pair.voice, torch.Tensor) for pair in pairs)
    direct = config.model_copy(deep=True)
    direct.data.source, direct.data.path = "manifest", prepared.parent / "list.tsv"
    for one, other in zip(pairs, load_pairs(direct, load_tts("base")), strict=True):
        assert (one.id, one.text) == (other.id, other.text)
        assert torch.equal(one.codes, other.codes) and torch.equal(one.voice, other.voice)
    other = RecordingEncoder.of(load_tts("base"))
    with torch.no_grad():
        changed = RecordingEncoder(other.codec, type(other.speaker_encoder)(other.speaker_encoder.config))
    assert changed.conditions["codec"] == other.conditions["codec"]
    assert changed.conditions["voices"] != other.conditions["voices"]


def test_embeddings_from_cached_states_need_no_llm(prepared: Path, tmp_path: Path) -> None:
    """Several layers: projected embeddings are equal up to bfloat16, and the LLM is never run."""
    config = make_config(tmp_path / "run")
    config.llm.name, config.llm.layers = str(save_llm(tmp_path / "llm")), [2, 4]
    config.tts.name = str(parity_file("tiny_custom_voice"))
    extract(prepared, tmp_path / "out", config, MachineShare(), 1, states=True)
    config.data.source, config.data.path = "pairs", tmp_path / "out"
    from audio_projection.models import load_llm

    llm, tts = load_llm(config), load_tts()
    models = Models(llm, new_projector(config, llm, tts), tts)
    pairs = load_pairs(config, tts)
    fresh = projected(config, models, [replace(pair, states=None) for pair in pairs])
    llm.states = None  # type: ignore[assignment,method-assign]  # calling it would fail
    for one, other in zip(projected(config, models, pairs), fresh, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.03)
    assert not torch.allclose(fresh[0][0], fresh[1][-1], atol=0.3)


def projected(config: Config, models: Models, pairs: Sequence[Pair]) -> list[torch.Tensor]:
    features = StateSource(models, pairs, config.train, config.tts.normalise).at([0, 1, 2])
    return [models.projector(each.states, each.text_embeddings) for each in features]


def test_a_run_on_features(prepared: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", steps=3)
    config.llm.name, config.tts.name = str(save_llm(tmp_path / "llm")), str(parity_file("tiny_custom_voice"))
    extract(prepared, tmp_path / "out", config, MachineShare(), 1, states=True)
    config.data.source, config.data.path, config.data.held_out = "pairs", tmp_path / "out", 1
    outcome = run_training(config)
    assert outcome.finished and outcome.step == 3 and outcome.held_out is not None


def command(repository: Path, *words: str | Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(repository / "src")}
    line = [sys.executable, "-m", "audio_projection", *map(str, words)]
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return out


@pytest.mark.posix
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_command_killed_with_its_processes_goes_on(
    prepared: Path, features: Path, repository: Path, tmp_path: Path
) -> None:
    """SIGKILL of the first process alone: the others end too, and the next run makes what is missing."""
    words = ["data", "features", prepared, tmp_path, "--config", "configs/nano.yaml", "llm.layers=1", "--states"]
    words += ["--processes", "2"]
    process = command(repository, *words)
    while not finished(tmp_path, MARK):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(3)
    before = finished(tmp_path, MARK)
    time.sleep(3)
    assert finished(tmp_path, MARK) == before, "a process outlived the one that began it"
    assert_whole(tmp_path)
    assert "9 pairs are in" in done(command(repository, *words))
    assert before.items() <= finished(tmp_path, MARK).items()
    assert contents(tmp_path) == contents(features)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("corpus", ["librispeech", "commonvoice", "ljspeech"])
def test_from_a_published_corpus_to_speech(corpus: str, repository: Path, shared: Path, tmp_path: Path) -> None:
    """prepare, features, 50 steps of nano, speak: the commands themselves."""
    corpora = shared / "data" / "corpora"
    source, held_out = {
        "librispeech": (corpora / "LibriSpeech", 1),
        "commonvoice": (next(corpora.glob("cv-corpus*")) / "en" / "dev.tsv", 2),
        "ljspeech": (corpora / "LJSpeech-1.1", 2),
    }[corpus]
    nano = ["--config", "configs/nano.yaml"]
    assert "kept" in done(command(repository, "data", "prepare", corpus, source, tmp_path / "prepared", *nano))
    encoded = done(command(repository, "data", "features", tmp_path / "prepared", tmp_path / "encoded", *nano))
    assert "pairs are in" in encoded
    settings = ["data.source=pairs", f"data.path={tmp_path / 'encoded'}", f"data.held_out={held_out}", "train.steps=50"]
    settings += ["train.batch=4", f"output_dir={tmp_path / 'run'}", "train.max_minutes=null"]
    assert "trained 50 steps" in done(command(repository, "train", *nano, *settings))
    records = [json.loads(line) for line in (tmp_path / "run/linear/metrics.jsonl").read_text().splitlines()]
    losses = [record["training"]["talker"] for record in records if "training" in record]
    assert len(losses) == 50 and sum(losses[-10:]) < sum(losses[:10])
    words = ["speak", *nano, f"output_dir={tmp_path / 'run'}", "--text", "Good morning.", "-o", tmp_path / "said.wav"]
    assert "said.wav" in done(command(repository, *words)) and (tmp_path / "said.wav").stat().st_size > 8000
