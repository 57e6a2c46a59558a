"""llama.cpp through the ctypes binding of llama-cpp-python: weights, key-value cache, capture of hidden states.

Files are validated before they are loaded here (`llm_file.check_llm`, `talker_file.check_stack_file`): llama.cpp
aborts the process where Python would raise.
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
"""Values of `gguf.memory`, with llama.cpp's numbers. mmap: memory for the pages that are used, shared between
processes; copy: all weights are read into memory, repacked where that is faster; lock: mapped and never swapped out."""
_NO_POOLING, _NO_FLASH, _AUTO_FLASH = 0, 0, -1
_F32, _F16 = 0, 1
MAX_BATCH = 512
"""Most tokens or embeddings in one call of llama_decode; longer inputs are split."""
_ERRORS: list[str] = []  # reported by llama.cpp during its last call


class LlamaWeights:
    """Model weights of one GGUF file, loaded by llama.cpp; any number of `LlamaContext` can share them."""

    def __init__(self, file: GGUFFile, memory: str = "mmap") -> None:
        """`file` has been validated; `memory`: one of MEMORY_MODES.

        Raises AudioProjectionError with llama.cpp's reason when it refuses the file.
        """
        self.file = file
        library = binding()
        quiet_library()
        parameters = library.llama_model_default_params()
        parameters.load_mode = MEMORY_MODES[memory]
        parameters.n_gpu_layers = 0
        # Repacked weights are a second copy in memory: mmap would save nothing.
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
        self.vocabulary_size: int = library.llama_vocab_n_tokens(self.vocabulary)
        # F32 files get an F32 key-value cache, so that they can be compared with torch; others the usual F16.
        self.exact = all(info.type == "F32" for info in file.tensors.values())

    def ends_answer(self, token: int) -> bool:
        """Whether llama.cpp treats a token as end of generation, by its role in the file or by its name."""
        return bool(binding().llama_vocab_is_eog(self.vocabulary, token))


class GraphTap:
    """Captures hidden states from llama.cpp's compute graph by tensor name, through its evaluation callback.

    It can also stop the computation after the last tensor wanted: nothing above it is computed, nor are the logits.
    Give it to a `LlamaContext`, call `capture` before a decode and `states` after it.
    """

    def __init__(self) -> None:
        self._wanted: tuple[bytes, ...] = ()
        self._stop = False
        self._captured: dict[bytes, list[np.ndarray]] = {}
        tensor_name, tensor_size, copy = _tensor_functions()

        def evaluated(tensor: int, ask: bool, _: Any) -> bool:
            """Called before each tensor (`ask`: is it wanted?) and after a wanted one (False: stop computing)."""
            name = tensor_name(tensor)
            if name not in self._wanted:
                return False
            if not ask:
                values = np.empty(tensor_size(tensor), np.float32)
                copy(tensor, values.ctypes.data, 0, values.nbytes)
                self._captured.setdefault(name, []).append(values)
            return ask or not (self._stop and name == self._wanted[-1])

        self.callback = binding().ggml_backend_sched_eval_callback(evaluated)

    def capture(self, names: Sequence[str], stop: bool) -> None:
        """Sets the tensors to capture, in the order of computation, and drops what was captured before.

        `stop`: compute nothing after the last of them.
        """
        self._wanted, self._stop, self._captured = tuple(name.encode() for name in names), stop, {}

    def states(self, name: str, width: int) -> np.ndarray:
        """The tensor `name` of all decodes since `capture`: (tokens, width), float32."""
        return np.concatenate(self._captured[name.encode()]).reshape(-1, width)


class Inputs:
    """Input batch of llama_decode: `count` embeddings of `width` numbers, or token ids where `width` is None.

    Fill before each decode: `embeddings` (count, width) float32 or `ids` (count,); `positions` (axes, count), `axes`
    being 4 for multimodal rotary positions, else 1; `sequences` (count,), the index of each input's sequence;
    `outputs` (count,), whether its hidden state or logits are wanted (all, at first). A batch is allocated once and
    filled again for each step: each step reads all weights, so Python's own data is never in the processor's caches,
    and making objects anew costs more than elsewhere.
    """

    def __init__(self, count: int, axes: int, width: int | None) -> None:
        self.ids = np.zeros(0 if width else count, np.int32)
        self.embeddings = torch.zeros(count, width or 0)
        self.positions = np.zeros((axes, count), np.int32)
        self.sequences = np.zeros(count, np.int32)
        self.outputs = np.ones(count, np.int8)
        self._ones = np.ones(count, np.int32)
        # an array of pointers, one to each of `sequences`
        self._pointers = self.sequences.ctypes.data + 4 * np.arange(count, dtype=np.uintp)
        self.batch = binding().llama_batch(
            n_tokens=count,
            token=None if width else _pointer(self.ids, ctypes.c_int32),
            embd=_pointer(self.embeddings.numpy(), ctypes.c_float) if width else None,
            pos=_pointer(self.positions, ctypes.c_int32),
            n_seq_id=_pointer(self._ones, ctypes.c_int32),
            seq_id=_pointer(self._pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self.outputs, ctypes.c_int8),
        )


class LlamaContext:
    """Key-value cache of one or several sequences over the same weights; decodes token ids or embeddings.

    Its memory grows by doubling. Without a tap `states` gives the hidden states after the final norm; with a
    `GraphTap` the context gives logits, and the tap the hidden states of the layers that it captures.
    """

    def __init__(
        self, weights: LlamaWeights, capacity: int, threads: int, sequences: int = 1, tap: GraphTap | None = None
    ) -> None:
        """`capacity`: positions of each sequence for which memory is taken at first.

        Raises AudioProjectionError when llama.cpp cannot allocate it.
        """
        self.weights, self.threads, self.sequences, self.tap = weights, threads, sequences, tap
        self.length = 0  # tokens in sequence 0
        self._view, self._states = (0, 0), torch.empty(0, 0)
        self._open(capacity)

    def decode_ids(self, ids: Sequence[int], every_output: bool = False) -> None:
        """Appends token ids to sequence 0; gives logits after the last of them, or after each (`every_output`)."""
        start, self.length = self.length, self.length + len(ids)
        for first in range(0, len(ids), MAX_BATCH):
            part = ids[first : first + MAX_BATCH]
            inputs = Inputs(len(part), 1, None)
            inputs.ids[:], inputs.outputs[:] = part, every_output
            inputs.outputs[-1] |= first + MAX_BATCH >= len(ids)
            inputs.positions[:] = np.arange(start + first, start + first + len(part))
            self.decode(inputs)

    def inputs(self, count: int) -> Inputs:
        """An input batch for `count` embeddings, at most MAX_BATCH."""
        axes = 4 if self.weights.file.architecture == "qwen3tts" else 1
        return Inputs(count, axes, self.weights.width)

    def decode(self, inputs: Inputs) -> None:
        """Runs llama_decode. Raises AudioProjectionError with llama.cpp's reason when it fails."""
        failed = call(binding().llama_decode, self._handle, inputs.batch)
        if failed:
            raise AudioProjectionError(
                f"llama.cpp cannot read on in {self.weights.file.path.name}: code {failed}, {last_error()}"
            )

    def logits(self) -> Tensor:
        """Logits (V,) after the last input, copied."""
        return _floats(_outputs().logits(self._handle, -1), (self.weights.vocabulary_size,)).clone()

    def states(self, count: int) -> Tensor:
        """Hidden states (count, width) of the last decode, after the final norm.

        A view of llama.cpp's memory: the next decode overwrites it.
        """
        address = _outputs().states(self._handle)
        if self._view != (address, count):
            self._view, self._states = (address, count), _floats(address, (count, self.weights.width))
        return self._states

    def clear(self) -> None:
        """Empties the key-value cache."""
        self.length = 0
        binding().llama_memory_clear(binding().llama_get_memory(self._handle), False)

    def crop(self, length: int) -> bool:
        """Keeps the first `length` tokens of sequence 0; False where the model's memory cannot be cut."""
        memory = binding().llama_get_memory(self._handle)
        if not binding().llama_memory_seq_rm(memory, 0, length, -1):
            return False
        self.length = length
        return True

    def forget(self, sequence: int) -> None:
        """Empties one sequence of the key-value cache."""
        binding().llama_memory_seq_rm(binding().llama_get_memory(self._handle), sequence, -1, -1)

    def reserve(self, length: int, sequences: int = 1) -> None:
        """Makes room for `sequences` sequences of `length` positions, keeping the keys and values; may raise as
        `__init__`."""
        if length <= self.capacity and sequences <= self.sequences:
            return
        library, old, free = binding(), self._handle, self._free
        kept = [self._sequence_state(sequence) for sequence in range(self.sequences)]
        if sequences > self.sequences:
            self.sequences = max(sequences, 2 * self.sequences)
        self._open(self.capacity if length <= self.capacity else max(length, 2 * self.capacity))
        for sequence, state in enumerate(kept):
            if state is not None and not library.llama_state_seq_set_data(self._handle, state, len(state), sequence):
                raise AudioProjectionError("llama.cpp cannot move its memory to a larger place; speak shorter texts")
        del old
        free()

    def _open(self, capacity: int) -> None:
        library = binding()
        positions = -(-capacity // 256) * 256
        parameters = library.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = positions * self.sequences, self.sequences
        parameters.n_batch = parameters.n_ubatch = MAX_BATCH
        parameters.n_threads = parameters.n_threads_batch = self.threads
        parameters.pooling_type, parameters.embeddings, parameters.no_perf = _NO_POOLING, self.tap is None, True
        exact = self.weights.exact
        parameters.type_k = parameters.type_v = _F32 if exact else _F16
        parameters.flash_attn_type = _NO_FLASH if exact else _AUTO_FLASH
        if self.tap is not None:
            parameters.cb_eval = self.tap.callback
        self._handle = call(library.llama_init_from_model, self.weights.handle, parameters)
        if not self._handle:
            raise AudioProjectionError(f"llama.cpp has no room for {positions} positions: {last_error()}")
        # the weights must outlive the context, also where both are collected at once
        self._free = weakref.finalize(self, _free_context, self._handle, self.weights)
        self.capacity = positions

    def _sequence_state(self, sequence: int) -> Any:
        """What llama.cpp stores of a sequence; None for an empty one, which it cannot bring back."""
        library = binding()
        if library.llama_memory_seq_pos_max(library.llama_get_memory(self._handle), sequence) < 0:
            return None
        size = library.llama_state_seq_get_size(self._handle, sequence)
        state = (ctypes.c_uint8 * size)()
        library.llama_state_seq_get_data(self._handle, state, size, sequence)
        return state


def _free_context(handle: Any, weights: LlamaWeights) -> None:
    assert weights.handle, "a context is freed before its weights"
    binding().llama_free(handle)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of llama.cpp that may call back into Python; Ctrl-C meanwhile raises KeyboardInterrupt after it.

    Python raises KeyboardInterrupt inside the callback, and ctypes passes exceptions of a callback to
    `sys.unraisablehook` only. Signals are handled in the main thread, so other threads need no such care.
    """
    _ERRORS.clear()
    if threading.current_thread() is not threading.main_thread():
        return function(*arguments)
    raised: list[BaseException] = []
    before = sys.unraisablehook

    def keep(report: Any) -> None:
        if isinstance(report.exc_value, KeyboardInterrupt):
            raised.append(report.exc_value)
        else:
            before(report)

    try:  # no context manager: a signal could be handled while one is entered or left, outside the hook
        sys.unraisablehook = keep
        result = function(*arguments)
    finally:
        sys.unraisablehook = before
    if raised:
        raise KeyboardInterrupt
    return result


def last_error() -> str:
    """The first error that llama.cpp reported during its last call."""
    return _ERRORS[0] if _ERRORS else "no reason given"


def _locked_memory() -> str | None:
    """How much memory of this process is locked (VmLck); None where the system does not report it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((line for line in lines if line.startswith("VmLck")), None)


def forget_pages(path: Path) -> None:
    """Releases the resident pages of a mapped file: each is read again when it is used.

    On Linux llama.cpp loads the whole file when it maps it. Elsewhere it does not, and this does nothing.
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
    """Keeps llama.cpp's log off the terminal; its errors are kept for `last_error`."""
    _silence()


@lru_cache(maxsize=1)
def _silence() -> Any:
    library = binding()
    library.llama_backend_init()

    def keep(level: int, text: bytes, _: Any) -> None:
        if level == 4 and text.strip():  # GGML_LOG_LEVEL_ERROR
            _ERRORS.append(" ".join(text.decode(errors="replace").split()))
            del _ERRORS[:-20]

    callback = library.llama_log_callback(keep)
    library.llama_log_set(callback, ctypes.c_void_p(0))
    return callback  # the cache keeps it alive


def _ggml() -> Any:
    """ggml's own library beside llama.cpp's, or llama.cpp's where ggml is linked into it.

    On Linux and Mac the loader finds ggml's functions through libllama too; on Windows llama.dll has its own only.
    """
    llama = binding()._lib
    names = ("ggml-base.dll", "libggml-base.dll", "libggml-base.dylib", "libggml-base.so")
    beside = [path for name in names if (path := Path(llama._name).parent / name).is_file()]
    return ctypes.CDLL(str(beside[0])) if beside else llama


@lru_cache(maxsize=1)
def _tensor_functions() -> tuple[Any, Any, Any]:
    """ggml's functions that give a tensor's name and number of elements, and that copy its data."""
    library = _ggml()
    library.ggml_get_name.argtypes, library.ggml_get_name.restype = [ctypes.c_void_p], ctypes.c_char_p
    library.ggml_nelements.argtypes, library.ggml_nelements.restype = [ctypes.c_void_p], ctypes.c_int64
    copy = library.ggml_backend_tensor_get
    copy.argtypes, copy.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t], None
    return library.ggml_get_name, library.ggml_nelements, copy


class _Outputs(NamedTuple):
    """llama.cpp's functions that give the address of hidden states and of logits."""

    states: Callable[[Any], int]
    logits: Callable[[Any, int], int]


@lru_cache(maxsize=1)
def _outputs() -> _Outputs:
    library, address, context = binding()._lib, ctypes.c_void_p, ctypes.c_void_p
    return _Outputs(
        ctypes.CFUNCTYPE(address, context)(("llama_get_embeddings", library)),
        ctypes.CFUNCTYPE(address, context, ctypes.c_int32)(("llama_get_logits_ith", library)),
    )


def _floats(address: int, shape: tuple[int, ...]) -> Tensor:
    """A float32 tensor on the memory at an address, not copied."""
    memory = (ctypes.c_float * math.prod(shape)).from_address(address)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape)


def _pointer(values: np.ndarray, kind: Any) -> Any:
    return values.ctypes.data_as(ctypes.POINTER(kind))
