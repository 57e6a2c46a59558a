"""Configurations: files, names, overrides, relative paths, and error messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_projection.config import (
    PROJECTOR_KINDS,
    PUBLISHED_CORPORA,
    SHIPPED_CONFIGS,
    Config,
    TrainConfig,
    find_config,
    load_config,
)
from audio_projection.errors import AudioProjectionError


def written(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def last_error(path: Path | str | None = None, *words: str) -> str:
    with pytest.raises(AudioProjectionError) as caught:
        load_config(path, words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["default", "nano", "smollm2"])
def test_the_shipped_configurations_are_valid(repository: Path, name: str) -> None:
    config = load_config(repository / "configs" / f"{name}.yaml")
    assert config.projector.kind == "linear"
    assert config.output_dir == repository / "runs" / name
    assert config.trained_projector == repository / "runs" / name / "linear" / "projector"


def test_the_default_is_the_real_thing(repository: Path) -> None:
    config = load_config(repository / "configs/default.yaml")
    assert config.llm.name == "meta-llama/Llama-3.1-8B-Instruct" and config.llm.layers == "probe"
    assert config.tts.name == "Qwen/Qwen3-TTS-12Hz-1.7B-Base"
    assert (config.data.source, config.data.subset) == ("librispeech", "train-clean-100")
    assert config.data.voice_speaker and len(config.llm.revision) == len(config.tts.revision) == 40


def test_smollm2_speaks_by_the_tts_of_nano() -> None:
    """Only its speaker is not named: the one that there is."""
    smollm2, nano = load_config("smollm2"), load_config("nano")
    assert smollm2.tts == nano.tts.model_copy(update={"speaker": None})
    assert smollm2.llm.context == "chat" and smollm2.data.source == "self"


@pytest.mark.parametrize("package", ["--index-url=x", "name", "name==", "a b==1", "a==1 --pre", "./wheel"])
def test_a_package_has_a_name_and_a_version(package: str) -> None:
    assert "llm.package" in last_error(None, f'llm.package="{package}"')


def test_a_shipped_configuration_is_found_from_any_folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("configs/nano.yaml").output_dir == repository / "runs/nano"


@pytest.mark.parametrize("name", SHIPPED_CONFIGS)
@pytest.mark.parametrize("shadow", [None, "file", "folder"])
def test_a_shipped_configuration_has_a_name(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shadow: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    if shadow == "file":
        (tmp_path / name).write_text("seed: 77\n")
    if shadow == "folder":
        (tmp_path / name).mkdir()
    assert find_config(name) == repository / "configs" / f"{name}.yaml"
    assert load_config(name) == load_config(repository / "configs" / f"{name}.yaml")
    if shadow == "file":
        assert load_config(f"./{name}").seed == 77, "a path is no name"


def test_an_unknown_name_lists_the_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert last_error("nanoo").endswith(f"nanoo: give one of {', '.join(SHIPPED_CONFIGS)}, or an existing YAML file")


def test_every_file_of_configs_has_its_name(repository: Path) -> None:
    files = {path.stem for path in (repository / "configs").glob("*.yaml")}
    assert files - {"fsdp"} == set(SHIPPED_CONFIGS), "fsdp.yaml is for accelerate"


def test_the_tables_of_choices_are_those_of_the_code() -> None:
    from audio_projection.alignment.controls import CONTROLS
    from audio_projection.data.corpora.layouts import READERS
    from audio_projection.evaluation.systems import MEANINGS, SYSTEMS
    from audio_projection.files.locations import SHIPPED_KINDS
    from audio_projection.projector import KINDS

    assert tuple(KINDS) == PROJECTOR_KINDS
    assert {*PUBLISHED_CORPORA, "manifest"} == READERS.keys()
    assert set(SHIPPED_KINDS) < set(PROJECTOR_KINDS) and set(PROJECTOR_KINDS) < MEANINGS.keys()
    assert {*CONTROLS, *SHIPPED_KINDS} < set(SYSTEMS) and len(set(SYSTEMS)) == len(SYSTEMS)


def test_a_voice_takes_the_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from audio_projection.inference import Voice

    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudioProjectionError, match="no projector.json"):
        Voice.from_config("nano", projector=str(tmp_path))


def test_overrides_win_and_keep_their_types() -> None:
    config = load_config(
        None,
        [
            "train.learning_rate=1e-3",
            "train.steps=20",
            "llm.layers=[1, 3]",
            "tts.speaker=null",
            "llm.prompt=Read: it # now",
        ],
        {"seed": 7, "device": "cpu"},
    )
    assert (config.train.learning_rate, config.train.steps, config.llm.layers) == (1e-3, 20, [1, 3])
    assert (config.tts.speaker, config.llm.prompt, config.seed, config.device) == (None, "Read: it # now", 7, "cpu")


def test_numbers_that_yaml_reads_as_text(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "train:\n  learning_rate: 1e-3\ndata:\n  voice_speaker: 103\n"))
    assert config.train.learning_rate == 1e-3 and config.data.voice_speaker == "103"


@pytest.mark.parametrize(
    "word", ["no", "off", "yes", "true", "007", "0103", "1:30", "1e3", "0x1F", "2024-01-02", "1.0"]
)
def test_text_stays_text(tmp_path: Path, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = f"tts:\n  speaker: {word}\nllm:\n  revision: {word}\ndata:\n  voice_speaker: {word}\n  path: {word}\n"
    config = load_config(written(tmp_path, lines))
    assert (config.tts.speaker, config.llm.revision, config.data.voice_speaker) == (word, word, word)
    assert config.data.path == tmp_path / word
    monkeypatch.chdir(tmp_path)
    typed = [f"{key}={word}" for key in ("tts.speaker", "data.voice_speaker", "output_dir", "data.path")]
    config = load_config(None, typed)
    assert (config.tts.speaker, config.data.voice_speaker) == (word, word)
    assert config.output_dir == config.data.path == tmp_path / word


def test_numbers_and_truth_where_they_are_meant(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "seed: 0103\nllm: {layers: [01, 2]}\ntrain: {precision: no, tensorboard: yes, steps: 1_000, warmup: 0x10}\n",
    )
    config = load_config(path)
    assert (config.seed, config.llm.layers, config.train.steps, config.train.warmup) == (103, [1, 2], 1000, 16)
    assert (config.train.precision, config.train.tensorboard) == ("no", True)
    assert load_config(None, ["train.precision=no", "train.tensorboard=off", "llm.layers=3"]).llm.layers == 3
    assert "train.max_minutes: expected a number, got '1:30'" in last_error(None, "train.max_minutes=1:30")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train:\n  steps: 3\nseed: 1\ntrain:\n  batch: 2\n", "'train' is there twice, in line 1 and in line 4"),
        ("train:\n  steps: 3\n  batch: 2\n  steps: 4\n", "'steps' is there twice, in line 2 and in line 4"),
        ("train: {steps: 3, steps: 4}\n", "'steps' is there twice, in line 1 and in line 1"),
    ],
)
def test_a_key_that_is_there_twice_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    message = last_error(written(tmp_path, text))
    assert words in message and "a.yaml" in message
    if "{" in text:
        assert words in last_error(None, text.strip().replace(": ", "=", 1))


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    text = "train: &a {steps: 3, batch: 2}\nfit: {batch: 4}\ntts: {lora_rank: 2}\n"
    assert load_config(written(tmp_path, text)).train.batch == 2
    merged = "fit: &a {batch: 2, tokens: 9}\ntrain:\n  <<: {batch: 3, steps: 7}\n  batch: 5\n"
    assert load_config(written(tmp_path, merged)).train.batch == 5


def test_relative_paths_start_at_the_root_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    path = written(tmp_path / "configs", "root: ..\noutput_dir: out\ndata:\n  path: /data\n  texts: nano\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_config(path, ["projector.path=mine # 1"], {"models_dir": Path("models")})
    assert config.output_dir == tmp_path / "out"
    assert config.data.path == Path("/data") and config.data.texts == "nano"
    assert config.projector.path == tmp_path / "elsewhere" / "mine # 1"
    assert config.models_dir == tmp_path / "elsewhere" / "models"


@pytest.mark.parametrize(
    ("word", "unknown", "nearest"),
    [
        ("train.lerning_rate=1", "train.lerning_rate", "train.learning_rate"),
        ("train.lr=1", "train.lr", "train.learning_rate"),
        ("projector.knid=linear", "projector.knid", "projector.kind"),
        ("trian.steps=3", "trian", "train"),
        ("speaker=rms", "speaker", "tts.speaker"),
        ("outputdir=x", "outputdir", "output_dir"),
    ],
)
def test_unknown_keys_are_named_with_the_nearest(word: str, unknown: str, nearest: str) -> None:
    assert last_error(None, word) == f"configuration: unknown key {unknown!r}, did you mean {nearest!r}?"


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("train.steps=many", "train.steps: expected a whole number, got 'many'"),
        ("train.steps=2.5", "train.steps: expected a whole number, got 2.5"),
        ("train.steps=-1", "train.steps: expected greater than or equal to 0, got -1"),
        ("train.learning_rate=.nan", "train.learning_rate: expected a finite number, got nan"),
        ("train=3", "train: expected keys with values, got 3"),
        ("projector.kind=cubic", "projector.kind: expected one of 'linear', 'residual' or 'mlp', got 'cubic'"),
        ("llm.layers=first", "expected one of 'last' or 'probe' or a whole number or a list, got 'first'"),
        ("llm.layers=[0,first]", "llm.layers: expected"),
        ("projector.mix=sum", "projector.mix: expected one of 'scalar' or 'concat', got 'sum'"),
        ("fit.probe_layers=[]", "fit.probe_layers: expected"),
        ("output_dir=", "output_dir: expected a path, got None"),
        ("tts.speaker=[a]", "tts.speaker: expected text, got ['a']"),
        ("device=gpu", "device: expected text like"),
        ("steps", "key=value"),
    ],
)
def test_wrong_values_are_named_with_what_was_expected(word: str, words: str) -> None:
    assert words in last_error(None, word)


def test_all_mistakes_of_a_file_come_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, "train:\n  stepz: 1\n  batch: none\nseed: x\n")
    message = last_error(path)
    assert message.startswith(f"{path}: ")
    for words in ["'train.stepz'", "train.batch: expected", "seed: expected"]:
        assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "line 1"),
        ("- a\n- b", "found list"),
        ("just words", "found str"),
        ("a: b: c", "line 1"),
        ("seed: 2024-13-45", "quote"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, words: str) -> None:
    assert words in last_error(written(tmp_path, text))


def test_a_word_like_a_date_is_text() -> None:
    assert load_config(None, ["data.subset=2024-13-45"]).data.subset == "2024-13-45"


def test_the_file_is_not_blamed_for_what_was_typed(tmp_path: Path) -> None:
    path = written(tmp_path, "train:\n  steps: 3\n")
    assert last_error(path, "seed=-1").startswith("configuration: seed: ")
    assert last_error(path, "train.batch=0").startswith("configuration: train.batch: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00a: 1")
    assert "UTF-8" in last_error(tmp_path / "binary.yaml")
    assert "no configuration file" in last_error(tmp_path / "none.yaml")
    assert "no configuration file" in last_error(tmp_path)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    empty = load_config(written(tmp_path, "# nothing\n"))
    assert empty.llm == Config().llm and empty.train == Config().train


def test_each_configuration_has_its_own_sections() -> None:
    first = load_config(None, ["train.steps=3"])
    first.train.batch = 5
    assert Config().train.batch == TrainConfig().batch != 5 and Config().train.steps is None


@pytest.mark.parametrize(
    ("words", "utterances", "steps"),
    [
        (["train.steps=7"], 1000, 7),
        (["train.epochs=2", "train.batch=4", "train.grad_accumulation=2"], 100, 25),
        (["train.epochs=1", "train.batch=8"], 3, 1),
    ],
)
def test_steps_of_a_training_set(words: list[str], utterances: int, steps: int) -> None:
    assert load_config(None, words).train.total_steps(utterances) == steps


@given(st.text(min_size=1, max_size=40))
def test_any_word_is_understood_or_refused_in_words(word: str) -> None:
    try:
        load_config(None, [word])
    except AudioProjectionError as error:
        assert "\n" not in str(error)
