"""Spectrograms of one sentence spoken by several systems, one under the other on the same scales."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from audio_projection.evaluation.spectral_distance import FRAMES_PER_SECOND, RATE, Frames
from audio_projection.files.atomic import write_bytes

QUIETEST, LOUDEST = -60, -10
"""Ends of the colour scale: dB relative to the mean power of each system's speech."""


def draw(spoken: Sequence[tuple[str, Frames]], title: str, path: str | Path) -> None:
    """Plots a PNG with a panel for each (name, sound); all share their axes of time and frequency and colours.

    Without a sound nothing is written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not spoken:
        return
    figure = Figure(figsize=(10, 1.2 + 1.3 * len(spoken)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(len(spoken), sharex=True, sharey=True, squeeze=False)[:, 0])
    for panel, (name, frames) in zip(panels, spoken, strict=True):
        extent = (0, len(frames) / FRAMES_PER_SECOND, 0, RATE / 2000)
        image = panel.imshow(
            frames.spectrum.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=QUIETEST, vmax=LOUDEST
        )
        panel.set_facecolor("lightgrey")  # beyond the end of a sound there is no signal, which is not silence
        panel.set_ylabel(f"{textwrap.fill(name, 16)}\nkHz")
    panels[0].set_xlim(0, max(len(frames) for _, frames in spoken) / FRAMES_PER_SECOND)
    panels[0].set_title(textwrap.fill(title, 90), loc="left", fontsize=10)
    panels[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=panels, label="dB", pad=0.01)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_bytes(path, picture.getvalue())
