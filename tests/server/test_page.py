"""The page in headless Chromium: it plays, shows, stops, remembers and complains."""

from __future__ import annotations

import shutil
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audio_projection.config import ServerConfig
from audio_projection.inference import Voice
from helpers.serving import Running, serving, until

TEXT = "The river is long and very cold."
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1000,900"),
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, driven by its own driver."""
    pytest.importorskip("selenium", reason="selenium is not installed (audio-projection[dev])")
    from selenium import webdriver

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its driver here (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def two(voice: Voice) -> Iterator[Running]:
    """A server of two projectors."""
    from audio_projection.config import load_config
    from audio_projection.files.locations import find_projector
    from audio_projection.projector import Projector

    residual = Projector.from_pretrained(find_projector(load_config("configs/nano.yaml"), "shipped/residual"))
    with serving({"linear": voice, "residual": voice.with_projector(residual)}, ServerConfig(port=0)) as server:
        yield server


@pytest.fixture
def page(browser: Any, two: Running) -> Any:
    """The page, freshly opened."""
    browser.get(f"{two.address}/")
    until(lambda: browser.execute_script("return document.querySelectorAll('#voice option').length") == 2)
    return browser


def find(page: Any, name: str) -> Any:
    return page.find_element("id", name)


def write(page: Any, text: str) -> None:
    find(page, "text").clear()
    find(page, "text").send_keys(text)


def script(page: Any, code: str) -> Any:
    return page.execute_script(f"return {code}")


LOUDEST = """(() => {
  if (!page.turn) return 0;
  const samples = new Float32Array(2048);
  page.turn.analyser.getFloatTimeDomainData(samples);
  return Math.max(...samples);
})()"""
PAINTED = """[...document.querySelectorAll('canvas')].map((canvas) => {
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(data.buffer)).size;
})"""


def test_it_plays_and_shows_a_text_while_it_is_made(page: Any, voice: Voice) -> None:
    assert [option.text for option in find(page, "model").find_elements("tag name", "option")] == ["linear", "residual"]
    write(page, TEXT)
    find(page, "go").click()
    until(lambda: script(page, LOUDEST) > 0.01)
    assert find(page, "stop").is_enabled() and not script(page, "page.turn.chunks.length === 0")
    until(lambda: script(page, "page.turn === null || page.turn.loaded"))
    spoken = voice.reading.spoken(TEXT)
    assert find(page, "talk").text == spoken
    until(lambda: not find(page, "stop").is_enabled())
    assert len(page.find_elements("css selector", ".heard")) == len(spoken.split())
    assert min(script(page, PAINTED)) > 1 and max(script(page, PAINTED)) > 50
    assert "First sound after" in find(page, "first-sound").text
    assert len(find(page, "bar").find_elements("tag name", "span")) >= 3 and "frames" in find(page, "parts").text
    assert not find(page, "error").is_displayed()


def test_what_was_played_can_be_downloaded(page: Any, tmp_path: Path) -> None:
    write(page, "Good morning.")
    find(page, "go").click()
    until(lambda: find(page, "download").is_displayed())
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    find(page, "download").click()
    until(lambda: (tmp_path / "speech.wav").exists())
    with wave.open(str(tmp_path / "speech.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24000, 1, 2)
        assert file.getnframes() > 12_000


def test_escape_stops_it_and_frees_the_server(page: Any, two: Running) -> None:
    from selenium.webdriver.common.keys import Keys

    write(page, f"{TEXT} " * 8)
    find(page, "text").send_keys(Keys.CONTROL, Keys.ENTER)
    until(lambda: script(page, LOUDEST) > 0.01)
    find(page, "text").send_keys(Keys.ESCAPE)
    assert script(page, "page.turn === null") and not find(page, "stop").is_enabled()
    until(lambda: two.service.admission.speaking == 0, seconds=3)
    assert find(page, "download").is_displayed()


def test_a_conversation_keeps_what_was_heard(page: Any) -> None:
    page.find_element("css selector", "[value=chat]").click()
    write(page, "Tell me about the river.")
    find(page, "go").click()
    until(lambda: script(page, "page.turn !== null && page.turn.words.length > 3 && page.turn.heard > 0.8"))
    find(page, "stop").click()
    user, answer = page.find_elements("css selector", "#talk p")
    assert user.text == "Tell me about the river." and len(answer.text.split()) > 0
    write(page, "And then?")
    find(page, "go").click()
    until(lambda: not find(page, "stop").is_enabled(), seconds=30)
    assert len(page.find_elements("css selector", "#talk p")) == 4
    assert not find(page, "error").is_displayed()


def test_errors_are_told_in_words(page: Any, voice: Voice) -> None:
    write(page, "...")
    find(page, "go").click()
    until(lambda: find(page, "error").is_displayed())
    assert "letter or digit" in find(page, "error").text and not find(page, "stop").is_enabled()
    with serving({"linear": voice}, ServerConfig(port=0), ["a-key-that-is-long-enough"]) as server:
        page.get(f"{server.address}/")
        until(lambda: find(page, "error").is_displayed())
        assert "key" in find(page, "error").text
        find(page, "key").send_keys("a-key-that-is-long-enough\t")
        until(lambda: script(page, "document.querySelectorAll('#voice option').length") == 2)
        assert not find(page, "error").is_displayed()
    write(page, TEXT)
    find(page, "go").click()
    until(lambda: "cannot be reached" in find(page, "error").text)


def test_it_loads_nothing_from_elsewhere(page: Any, two: Running) -> None:
    loaded = script(page, "performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(loaded) >= 4 and all(name.startswith((two.address, "data:")) for name in loaded)
    folder = Path(__file__).resolve().parents[2] / "src/audio_projection/server/page_files"
    assert not any("://" in path.read_text(encoding="utf-8") for path in folder.iterdir())


def test_it_fits_a_phone_and_follows_dark_and_light(page: Any) -> None:
    grounds = []
    for scheme in ("dark", "light"):
        page.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        grounds.append(script(page, "getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert script(page, "document.documentElement.scrollWidth") <= 360
        assert script(page, "document.getElementById('go').getBoundingClientRect().right") <= 360
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
