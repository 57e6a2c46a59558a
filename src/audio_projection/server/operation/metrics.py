"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from audio_projection.server.admission import Admission
from audio_projection.tts.engine.utterance import Timing

_SECONDS = (0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """The counters of one server; each has a registry of its own."""

    def __init__(self, admission: Admission) -> None:
        self.registry = registry = CollectorRegistry()
        prefix = "audio_projection"
        self.requests = Counter(
            f"{prefix}_requests", "Requests by path and HTTP status.", ["path", "status"], registry=registry
        )
        self.first_sound = Histogram(
            f"{prefix}_first_sound_seconds",
            "From the request to its first bytes of sound.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.sound = Counter(f"{prefix}_sound_seconds", "Seconds of sound that were made.", registry=registry)
        self.underruns = Counter(
            f"{prefix}_underruns", "Chunks that were made later than playback needed them.", registry=registry
        )
        self.gone = Counter(
            f"{prefix}_clients_gone", "Clients that went away before their sound was complete.", registry=registry
        )
        self.parts = Counter(
            f"{prefix}_utterance_seconds", "Where the time of utterances went.", ["part"], registry=registry
        )
        self.sessions = Gauge(f"{prefix}_sessions", "Open realtime sessions.", registry=registry)
        for name, words, read in (
            ("streams", "Requests that are being spoken.", lambda: admission.speaking),
            ("streams_limit", "Requests that are spoken at once at most.", lambda: admission.streams),
            ("waiting", "Requests that wait for their turn.", lambda: admission.waiting),
        ):
            Gauge(f"{prefix}_{name}", words, registry=registry).set_function(read)

    def add_timings(self, timings: Iterable[Timing]) -> None:
        """Counts where the time of a request's utterances went."""
        for timing in timings:
            for part, seconds in timing.parts().items():
                self.parts.labels(part).inc(seconds)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
