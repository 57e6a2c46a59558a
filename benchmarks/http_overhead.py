"""What HTTP adds: the time to the first sound from the voice itself and through the server, in turns.

    python benchmarks/http_overhead.py --config configs/nano.yaml --pairs 50

Both in one process, with the same voice and seeds: what is added is the server's work, the client's, and that they
share Python's interpreter lock with the talker, which a client elsewhere does not.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import threading
import time

import uvicorn

from audio_projection.config import ServerConfig
from audio_projection.inference import Voice
from audio_projection.server.app import create_app
from audio_projection.server.operation.run import listening_socket

TEXT = "The old dog slept beside the warm stove."


def by_voice(voice: Voice, seed: int) -> float:
    """Milliseconds to the first chunk, in process."""
    begun = time.perf_counter()
    stream = voice.stream(TEXT, seed=seed)
    next(stream)
    took = time.perf_counter() - begun
    stream.close()
    return 1000 * took


def by_http(connection: http.client.HTTPConnection, seed: int) -> float:
    """Milliseconds to the first bytes of PCM, over a connection that is open; the whole answer is read."""
    body = json.dumps({"input": TEXT, "response_format": "pcm", "seed": seed})
    begun = time.perf_counter()
    connection.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read1(2)
    took = time.perf_counter() - begun
    answer.read()
    return 1000 * took


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--config", default="configs/nano.yaml")
    options.add_argument("--pairs", type=int, default=50)
    given = options.parse_args()
    voice, settings = Voice.from_config(given.config), ServerConfig(port=0)
    listening: socket.socket = listening_socket(settings)
    server = uvicorn.Server(uvicorn.Config(create_app({"voice": voice}, settings), log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    connection = http.client.HTTPConnection("127.0.0.1", listening.getsockname()[1])
    pairs = []
    for number in range(given.pairs + 2):
        voice_first = number % 2
        first = by_voice(voice, number) if voice_first else by_http(connection, number)
        second = by_http(connection, number) if voice_first else by_voice(voice, number)
        pairs.append((first, second) if voice_first else (second, first))
    measured = pairs[2:]  # the first ones warm up
    print(f"in process, median      {statistics.median(own for own, _ in measured):6.1f} ms")
    print(f"over HTTP, median       {statistics.median(other for _, other in measured):6.1f} ms")
    print(f"added, median of pairs  {statistics.median(other - own for own, other in measured):6.1f} ms")
    server.should_exit = True


if __name__ == "__main__":
    main()
