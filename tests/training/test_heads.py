"""The head before every text stays what it was when a run began, whatever day a chat template writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from audio_projection.data import cached_states
from audio_projection.data.cached_states import CachedStates
from audio_projection.errors import AudioProjectionError
from audio_projection.fit.assemble import new_projector
from audio_projection.inference import Voice
from audio_projection.projector import ProjectorInfo
from audio_projection.train import head_to_read
from helpers.tiny_llm import TEMPLATE, make_llm
from helpers.training import load_tts, make_config, make_pairs
from helpers.voices import make_voice


class Stored:
    """Checkpoints of a run that began with a projector of these metadata; none without."""

    def __init__(self, info: ProjectorInfo | None = None) -> None:
        self._info = info

    def latest(self) -> Path | None:
        return None if self._info is None else Path("step-1")

    def settings(self, folder: Path) -> dict[str, Any]:
        assert self._info is not None
        return {"projector": self._info.to_json()}


def test_a_run_goes_on_with_its_head_and_cached_states_with_theirs() -> None:
    llm, tts = make_llm(context="chat"), load_tts()
    info = new_projector(make_config(Path("unused")), llm, tts).info
    assert info.head == llm.head
    states = CachedStates(torch.zeros(1, 1, 32), cached_states.conditions(llm.with_head([5, 6]), "none"))
    cached = [replace(pair, states=states) for pair in make_pairs(2)]
    assert head_to_read(Stored(info), make_pairs(2)) == llm.head  # type: ignore[arg-type]
    assert head_to_read(Stored(info), cached) == llm.head  # type: ignore[arg-type]
    assert head_to_read(Stored(), cached) == [5, 6]  # type: ignore[arg-type]
    assert head_to_read(Stored(), make_pairs(2)) is None  # type: ignore[arg-type]


def test_cached_states_know_their_head() -> None:
    llm = make_llm(context="chat")
    made = CachedStates(torch.zeros(1, 1, 32), cached_states.conditions(llm, "none"))
    cached_states.check([made], llm, "none")
    with pytest.raises(AudioProjectionError, match="another beginning of the chat template"):
        cached_states.check([made], llm.with_head([1]), "none")
    older = {name: value for name, value in made.conditions.items() if name != "head"}
    cached_states.check([CachedStates(made.values, older)], llm, "none")


def test_a_voice_reads_with_the_head_of_its_projector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that writes another day: the head comes from projector.json, the conversation from the template."""
    voice = make_voice(context="chat")
    voice.projector.save_pretrained(tmp_path)
    head = voice.projector.info.head
    today = make_llm(context="chat")
    monkeypatch.setattr(today.tokenizer, "chat_template", "{{ bos_token }}today" + TEMPLATE)
    fresh = make_llm(context="chat")
    assert fresh.head != head
    config = make_config(tmp_path / "run")
    config.projector.path, config.llm.context, config.tts.speaker = tmp_path, "chat", "ada"
    monkeypatch.setattr("audio_projection.inference.loading.load_llm", lambda _: fresh.select([2, 4]))
    monkeypatch.setattr("audio_projection.inference.loading.load_tts", lambda _: voice.tts)
    assert Voice.from_config(config).llm.head == head
