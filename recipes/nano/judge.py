"""How well the voice in the making is understood, and how it sounds, while its trainings go on.

    python recipes/nano/judge.py work --rows teacher codes codec plain --whisper whisper-base --sentences 40

Sentences of a file (by default those that are held out of all training) are spoken by the teacher, by the teacher
through the fixed codes (made sound by Griffin and Lim's algorithm: what the codes keep, whatever the decoder makes of
it; or by the trained decoder), and by the talker from plain text.  Whisper (faster-whisper, beam 5,
temperature 0, English normaliser on both sides) counts the words that it hears wrong; DNSMOS judges the sound where
speechmos is installed.  Needs the extra `whisper`.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import decoder
import librosa
import numpy as np
import soundfile
import torch
from checkpoint import load
from codebooks import FFT, FLOOR, HOP, MELS, latents_of, mel_filters, mel_patches, quantise
from folder import VOICE
from safetensors.torch import load_file
from teacher import SAMPLE_RATE, teacher

from audio_projection.evaluation.dnsmos import DNSMOS
from audio_projection.evaluation.recognisers import Whisper
from audio_projection.evaluation.word_errors import WordErrors, word_errors
from audio_projection.tts.generate import generate
from audio_projection.tts.model import Qwen3TTS

HELD_OUT = Path(__file__).resolve().parents[2] / "benchmarks" / "heldout.txt"
Samples = np.ndarray
"""float32 at 24 kHz."""


def taught(work: Path, texts: list[str]) -> Iterator[Samples]:
    """The teacher itself."""
    for text in texts:
        spoken = teacher().speak(text)
        yield np.zeros(SAMPLE_RATE, np.float32) if spoken is None else spoken.audio.astype(np.float32) / 32_768


def codes_of(samples: Samples, books: dict[str, torch.Tensor]) -> torch.Tensor:
    """int64 (F, 16)."""
    return quantise(latents_of(mel_patches(torch.from_numpy(samples)), books), books)


def griffin_lim(work: Path, texts: list[str]) -> Iterator[Samples]:
    """The teacher's codes as spectra, with phases by Griffin and Lim."""
    books = load_file(work / "codebooks.safetensors")
    to_patches, to_bins = torch.linalg.pinv(books["basis"]), torch.linalg.pinv(mel_filters())
    for samples in taught(work, texts):
        codes = codes_of(samples, books)
        latents = sum(book[codes[:, number]] for number, book in enumerate(books["rest"], 1))
        mels = (latents @ to_patches + books["mean"]).exp() - FLOOR
        bins = (to_bins @ mels.clamp_min(0).reshape(-1, MELS).T).clamp_min(1e-6).numpy()
        made = librosa.griffinlim(bins, n_iter=60, hop_length=HOP, n_fft=FFT, center=False, random_state=0)
        margin = (FFT - HOP) // 2
        yield made[margin : margin + len(samples)]


@torch.inference_mode()
def coded(work: Path, texts: list[str]) -> Iterator[Samples]:
    """The teacher's speech, its codes by the codebooks, and the decoder's sound of them."""
    books = load_file(work / "codebooks.safetensors")
    parts = decoder.with_critics(decoder.build(books))
    step = load(work / "decoder.safetensors", parts, [])
    print(f"decoder: step {step}", flush=True)
    for samples in taught(work, texts):
        codes = codes_of(samples, books)
        made = parts["decoder"].synthesize(parts["decoder"].quantizer(codes[None]))
        yield made[0].numpy()[: len(samples)]


@torch.inference_mode()
def plain(work: Path, texts: list[str]) -> Iterator[Samples]:
    """The whole TTS of the folder (`folder.py`), fed with text, in the streaming layout."""
    tts = Qwen3TTS.from_pretrained(work / "tts")
    opening = tts.prefix(VOICE, "english")
    for text in texts:
        ids, _ = tts.tokenize(text)
        (codes,) = generate(tts, [(opening, tts.text_embeddings(torch.tensor(ids)))])
        yield tts.codec.decode(codes).numpy()


ROWS: dict[str, Callable[[Path, list[str]], Iterator[Samples]]] = {
    "teacher": taught,
    "codes": griffin_lim,
    "codec": coded,
    "plain": plain,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--whisper", required=True, help="folder or name of a faster-whisper model")
    parser.add_argument("--text", type=Path, default=HELD_OUT, help="file of sentences, a line each")
    parser.add_argument("--sentences", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="folder for the sound")
    arguments = parser.parse_args()
    texts = arguments.text.read_text(encoding="utf-8").splitlines()[: arguments.sentences]
    whisper, naturalness = Whisper(arguments.whisper), DNSMOS()
    whisper.check()
    for row in arguments.rows:
        errors, scores, seconds = WordErrors(0, 0, 0, 0), [], 0.0
        for number, (text, samples) in enumerate(zip(texts, ROWS[row](arguments.work, texts), strict=True), 1):
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                soundfile.write(arguments.keep / f"{row}-{number:03d}.wav", samples, SAMPLE_RATE)
            seconds += len(samples) / SAMPLE_RATE
            errors += word_errors(text, whisper.transcribe(samples, SAMPLE_RATE), whisper.normalise)
            if naturalness.installed():
                scores.append(naturalness.scores(samples, SAMPLE_RATE))
        sound = [f"{name} {np.mean([each[name] for each in scores]):.2f}" for name in (scores[0] if scores else ())]
        print(f"{row}: {100 * errors.rate:.1f} % of the words wrong, {seconds:.0f} s, {' '.join(sound)}", flush=True)


if __name__ == "__main__":
    main()
