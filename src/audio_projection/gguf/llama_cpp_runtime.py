"""llama.cpp in this process, through the low-level binding: weights, a context that grows, and a tap on its graph.

Files are checked before they come here (`llm_file.check_llm`, `talker_file.check_stack_file`): native code ends the
process where Python would raise.
"""

from __future__ import annotations

import ctypes
import logging
import math
import mmap
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.gguf.optional_packages import binding
from audio_projection.gguf.reader import GGUFFile

log = logging.getLogger(__name__)

MEMORY_MODES = {"mmap": 1, "copy": 0, "lock": 2}
"""mmap: only pages that are used take memory, shared between processes; copy: all are read into memory, and laid out
anew where that makes the processor faster; lock: never swapped out."""
_NO_POOLING, _NO_FLASH, _AUTO_FLASH = 0, 0, -1
_F32, _F16 = 0, 1
_BATCH = 512
_MESSAGES: list[str] = []


class LlamaWeights:
    """The weights of one checked file, shared by any number of contexts."""

    def __init__(self, file: GGUFFile, memory: str = "mmap") -> None:
        """AudioProjectionError when llama.cpp refuses the file, with its last words."""
        self.file = file
        library = binding()
        quiet_library()
        parameters = library.llama_model_default_params()
        parameters.load_mode = MEMORY_MODES[memory]
        parameters.n_gpu_layers = 0
        # Weights laid out anew for the processor are a second copy of them, which defeats a map of the file.
        parameters.use_extra_bufts = memory == "copy"
        locked = _locked_memory()
        self.handle = call(library.llama_model_load_from_file, os.fsencode(file.path), parameters)
        if not self.handle:
            raise AudioProjectionError(f"llama.cpp cannot load {file.path}: {last_error()}")
        self._free = weakref.finalize(self, library.llama_model_free, self.handle)
        if memory == "lock" and locked is not None and _locked_memory() == locked:
            log.warning("%s is not locked in memory: the system allows this process too little (ulimit -l)", file.path)
        if memory == "mmap":
            forget_pages(file.path)
        self.width: int = library.llama_model_n_embd(self.handle)
        self.vocabulary = library.llama_model_get_vocab(self.handle)
        self.rows: int = library.llama_vocab_n_tokens(self.vocabulary)
        # Exact files get exact keys and values, for comparisons; others the half precision that is usual.
        self.exact = all(info.type == "F32" for info in file.tensors.values())

    def ends_answer(self, token: int) -> bool:
        """Whether llama.cpp takes a token for the end of an answer, by its role in the file or by its name."""
        return bool(binding().llama_vocab_is_eog(self.vocabulary, token))


class GraphTap:
    """Copies named tensors out of the graph while it is computed, and can end the computation after the last of them.

    `wanted` are the names in the order in which they are computed; after a decode `taken` holds for each an array
    (rows, width), float32. With `stop` nothing above the last one is computed (nor are its logits).
    """

    def __init__(self) -> None:
        self.wanted: tuple[bytes, ...] = ()
        self.stop = False
        self.taken: dict[bytes, list[np.ndarray]] = {}
        name, count, copy = _tensor_functions()

        def see(tensor: int, asked: bool, _: Any) -> bool:
            found = name(tensor)
            if found not in self.wanted:
                return False
            if not asked:
                values = np.empty(count(tensor), np.float32)
                copy(tensor, values.ctypes.data, 0, values.nbytes)
                self.taken.setdefault(found, []).append(values)
            return asked or not (self.stop and found == self.wanted[-1])

        self.callback = binding().ggml_backend_sched_eval_callback(see)

    def listen(self, wanted: Sequence[str], stop: bool) -> None:
        """What the next decodes are to leave here; forgets what the last ones left."""
        self.wanted, self.stop, self.taken = tuple(name.encode() for name in wanted), stop, {}

    def rows(self, name: str, width: int) -> np.ndarray:
        """(N, width) of one of the tensors."""
        return np.concatenate(self.taken[name.encode()]).reshape(-1, width)


class Inputs:
    """llama.cpp's batch of `count` inputs, rows of `width` numbers or token ids (`width` None), and what it points to.

    To be filled anew for each decode: `rows` (count, width) float32 or `ids` (count,); `places` (positions, count),
    `sequences` (count,), and in `outputs` (count,) whether a state or logits are wanted, at first all. A decoding
    step between two readings of all weights finds nothing of Python's in the processor's caches: whatever can be
    made once is made once.
    """

    def __init__(self, count: int, positions: int, width: int | None) -> None:
        self.ids = np.zeros(0 if width else count, np.int32)
        self.rows = torch.zeros(count, width or 0)
        self.places = np.zeros((positions, count), np.int32)
        self.sequences = np.zeros(count, np.int32)
        self.outputs = np.ones(count, np.int8)
        self._ones = np.ones(count, np.int32)
        self._starts = self.sequences.ctypes.data + 4 * np.arange(count, dtype=np.uintp)  # a pointer to each number
        self.batch = binding().llama_batch(
            n_tokens=count,
            token=None if width else _pointer(self.ids, ctypes.c_int32),
            embd=_pointer(self.rows.numpy(), ctypes.c_float) if width else None,
            pos=_pointer(self.places, ctypes.c_int32),
            n_seq_id=_pointer(self._ones, ctypes.c_int32),
            seq_id=_pointer(self._starts, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self.outputs, ctypes.c_int8),
        )


class LlamaContext:
    """Keys and values of one or several sequences, in memory that grows by doubling.

    Without a tap every input's state after the final norm comes out of `states`; with one, what it listens to.
    """

    def __init__(
        self, weights: LlamaWeights, capacity: int, threads: int, sequences: int = 1, tap: GraphTap | None = None
    ) -> None:
        """`capacity`: positions of each sequence that there is room for without growing."""
        self.weights, self.threads, self.sequences, self.tap = weights, threads, sequences, tap
        self.length = 0  # tokens in sequence 0
        self._place, self._states = (0, 0), torch.empty(0, 0)
        self._open(capacity)

    def decode_ids(self, ids: Sequence[int], every_output: bool = False) -> None:
        """Reads token ids into sequence 0 after what it holds; logits come after the last, or after each."""
        start, self.length = self.length, self.length + len(ids)
        for first in range(0, len(ids), _BATCH):
            part = ids[first : first + _BATCH]
            inputs = Inputs(len(part), 1, None)
            inputs.ids[:], inputs.outputs[:] = part, every_output
            inputs.outputs[-1] |= first + _BATCH >= len(ids)
            inputs.places[:] = np.arange(start + first, start + first + len(part))
            self.decode(inputs)

    def inputs(self, count: int) -> Inputs:
        """For `count` rows, at most 512, to be filled and decoded."""
        positions = 4 if self.weights.file.architecture == "qwen3tts" else 1
        return Inputs(count, positions, self.weights.width)

    def decode(self, inputs: Inputs) -> None:
        """Reads `inputs`. AudioProjectionError when llama.cpp cannot."""
        failed = call(binding().llama_decode, self._handle, inputs.batch)
        if failed:
            raise AudioProjectionError(
                f"llama.cpp cannot read on in {self.weights.file.path.name}: code {failed}, {last_error()}"
            )

    def logits(self) -> Tensor:
        """(V,) after the last input, copied."""
        return _floats(_outputs().logits(self._handle, -1), (self.weights.rows,)).clone()

    def states(self, count: int) -> Tensor:
        """(count, width) of the inputs of the last decode, after the final norm, where llama.cpp keeps them."""
        place = _outputs().states(self._handle)
        if self._place != (place, count):
            self._place, self._states = (place, count), _floats(place, (count, self.weights.width))
        return self._states

    def clear(self) -> None:
        """Forgets everything read."""
        self.length = 0
        binding().llama_memory_clear(binding().llama_get_memory(self._handle), False)

    def reserve(self, length: int) -> None:
        """Room for `length` positions of each sequence; what was read stays."""
        if length <= self.capacity:
            return
        library, old, free = binding(), self._handle, self._free
        kept = [self._sequence_state(sequence) for sequence in range(self.sequences)]
        self._open(max(length, 2 * self.capacity))
        for sequence, state in enumerate(kept):
            if state and not library.llama_state_seq_set_data(self._handle, state, len(state), sequence):
                raise AudioProjectionError("llama.cpp cannot move its memory to a larger place; speak shorter texts")
        del old
        free()

    def _open(self, capacity: int) -> None:
        library = binding()
        room = -(-capacity // 256) * 256
        parameters = library.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = room * self.sequences, self.sequences
        parameters.n_batch = parameters.n_ubatch = _BATCH
        parameters.n_threads = parameters.n_threads_batch = self.threads
        parameters.pooling_type, parameters.embeddings, parameters.no_perf = _NO_POOLING, self.tap is None, True
        exact = self.weights.exact
        parameters.type_k = parameters.type_v = _F32 if exact else _F16
        parameters.flash_attn_type = _NO_FLASH if exact else _AUTO_FLASH
        if self.tap is not None:
            parameters.cb_eval = self.tap.callback
        self._handle = call(library.llama_init_from_model, self.weights.handle, parameters)
        if not self._handle:
            raise AudioProjectionError(f"llama.cpp has no room for {room} positions: {last_error()}")
        # the weights must outlive what was made of them, also where both are garbage at once
        self._free = weakref.finalize(self, _free_context, self._handle, self.weights)
        self.capacity = room

    def _sequence_state(self, sequence: int) -> Any:
        library = binding()
        size = library.llama_state_seq_get_size(self._handle, sequence)
        state = (ctypes.c_uint8 * size)()
        library.llama_state_seq_get_data(self._handle, state, size, sequence)
        return state


def _free_context(handle: Any, weights: LlamaWeights) -> None:
    assert weights.handle, "a context is freed before its weights"
    binding().llama_free(handle)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of llama.cpp that calls back into Python: Ctrl-C meanwhile ends it with KeyboardInterrupt.

    It comes up in the callback, and what a callback raises ctypes gives to `sys.unraisablehook` alone. Signals are
    the main thread's, so other threads have nothing to wait for.
    """
    _MESSAGES.clear()
    if threading.current_thread() is not threading.main_thread():
        return function(*arguments)
    raised: list[BaseException] = []
    before = sys.unraisablehook

    def keep(report: Any) -> None:
        if isinstance(report.exc_value, KeyboardInterrupt):
            raised.append(report.exc_value)
        else:
            before(report)

    try:  # no context manager: Python looks for signals where one is entered and left
        sys.unraisablehook = keep
        result = function(*arguments)
    finally:
        sys.unraisablehook = before
    if raised:
        raise KeyboardInterrupt
    return result


def last_error() -> str:
    """The first that llama.cpp complained of in its last call."""
    return _MESSAGES[0] if _MESSAGES else "no reason given"


def _locked_memory() -> str | None:
    """What of this process cannot be swapped out, where Linux tells it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((line for line in lines if line.startswith("VmLck")), None)


def forget_pages(path: Path) -> None:
    """Takes the pages of a mapped file out of this process's memory: each comes back when it is used.

    llama.cpp fetches all of them when it maps a file under Linux. Elsewhere it does not, and nothing is done.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    mapped = re.compile(rf"([0-9a-f]+)-([0-9a-f]+) r--[sp] .* {re.escape(str(path.resolve()))}")
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in maps.read_text(errors="surrogateescape").splitlines():
        found = mapped.fullmatch(line)
        if found:
            start, end = (int(address, 16) for address in found.groups())
            advise(start, end - start, mmap.MADV_DONTNEED)


def quiet_library() -> None:
    """Keeps llama.cpp's messages off the terminal; its complaints become part of our errors."""
    _silence()


@lru_cache(maxsize=1)
def _silence() -> Any:
    library = binding()
    library.llama_backend_init()

    def keep(level: int, text: bytes, _: Any) -> None:
        if level == 4 and text.strip():  # GGML_LOG_LEVEL_ERROR
            _MESSAGES.append(" ".join(text.decode(errors="replace").split()))
            del _MESSAGES[:-20]

    callback = library.llama_log_callback(keep)
    library.llama_log_set(callback, ctypes.c_void_p(0))
    return callback  # the cache keeps it alive


@lru_cache(maxsize=1)
def _tensor_functions() -> tuple[Any, Any, Any]:
    """ggml's functions for a tensor's name, its number of elements, and a copy of its numbers."""
    library = binding()._lib  # ggml's functions are found through the library that depends on them
    library.ggml_get_name.argtypes, library.ggml_get_name.restype = [ctypes.c_void_p], ctypes.c_char_p
    library.ggml_nelements.argtypes, library.ggml_nelements.restype = [ctypes.c_void_p], ctypes.c_int64
    copy = library.ggml_backend_tensor_get
    copy.argtypes, copy.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t], None
    return library.ggml_get_name, library.ggml_nelements, copy


class _Outputs(NamedTuple):
    """llama.cpp's functions for what came out, giving plain addresses."""

    states: Callable[[Any], int]
    logits: Callable[[Any, int], int]


@lru_cache(maxsize=1)
def _outputs() -> _Outputs:
    library, place, context = binding()._lib, ctypes.c_void_p, ctypes.c_void_p
    return _Outputs(
        ctypes.CFUNCTYPE(place, context)(("llama_get_embeddings", library)),
        ctypes.CFUNCTYPE(place, context, ctypes.c_int32)(("llama_get_logits_ith", library)),
    )


def _floats(place: int, shape: tuple[int, ...]) -> Tensor:
    """The float32 numbers at an address, not copied."""
    memory = (ctypes.c_float * math.prod(shape)).from_address(place)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape)


def _pointer(values: np.ndarray, kind: Any) -> Any:
    return values.ctypes.data_as(ctypes.POINTER(kind))
