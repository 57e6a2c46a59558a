"""The safetensors files of a checkpoint folder as one set of named tensors, one file or shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.files.json_reader import read_json_object

Shape = tuple[int, ...]


class TensorFolder:
    """The safetensors of a folder: model.safetensors, or the shards that model.safetensors.index.json lists.

    Where two shards hold a tensor of one name, the index decides.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files: dict[str, Path] = {}
        self._open: dict[Path, safe_open] = {}
        index = self.folder / "model.safetensors.index.json"
        if (self.folder / "model.safetensors").is_file():
            self._enter(self.folder / "model.safetensors", None)
        elif index.is_file():
            self._enter_shards(index)
        else:
            raise AudioProjectionError(
                f"{self.folder} has no model.safetensors (nor shards with an index): download it"
            )

    def names(self) -> list[str]:
        return sorted(self._files)

    def shape(self, name: str) -> Shape:
        return tuple(self._opened(self._files[name]).get_slice(name).get_shape())

    def shapes(self) -> dict[str, Shape]:
        """Shapes of all tensors; only the files' headers are read."""
        found: dict[str, Shape] = {}
        for path in dict.fromkeys(self._files.values()):
            file = self._opened(path)
            own = [name for name in _names(file) if self._files.get(name) == path]
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in own}
        return found

    def tensor(self, name: str) -> Tensor:
        path = self._files[name]
        try:
            return self._opened(path).get_tensor(name)
        except SafetensorError as error:
            raise _damaged(path, error) from None

    def _enter_shards(self, index: Path) -> None:
        places = read_json_object(index, "a checkpoint folder").get("weight_map")
        names = places.values() if isinstance(places, Mapping) else ()
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise AudioProjectionError(f"{index} has no weight_map of tensors to files; download it again")
        assert isinstance(places, Mapping)
        for shard in sorted(set(places.values())):
            path = self.folder / shard
            if not path.is_file():
                raise AudioProjectionError(f"{path} is missing, a shard that {index.name} lists; download it again")
            self._enter(path, {name for name, place in places.items() if place == shard})

    def _enter(self, path: Path, expected: set[str] | None) -> None:
        names = set(_names(self._opened(path)))
        absent = sorted((expected or set()) - names)
        if absent:
            raise AudioProjectionError(f"{path} lacks {_some(absent)}, which the index places there; download it again")
        # what a shard holds beside that is of no use, or belongs to another shard
        self._files |= dict.fromkeys(names if expected is None else expected, path)

    def _opened(self, path: Path) -> safe_open:
        """A file, opened once: its header names every tensor in it."""
        if path not in self._open:
            try:
                self._open[path] = safe_open(str(path), framework="pt")
            except (SafetensorError, OSError) as error:
                raise _damaged(path, error) from None
        return self._open[path]


def _names(file: safe_open) -> list[str]:
    return list(file.keys())


def _damaged(path: Path, error: Exception) -> AudioProjectionError:
    return AudioProjectionError(f"{path} is truncated or no safetensors file ({error}); download it again")


def check_tensors(needed: Mapping[str, Shape], files: TensorFolder, others: str | None = None) -> None:
    """AudioProjectionError unless `files` holds exactly the tensors `needed`, in these shapes.

    Names that begin with `others` belong to another module and are passed over.
    """
    present = {
        name: shape
        for name, shape in files.shapes().items()
        if not name.endswith("rotary_emb.inv_freq") and (others is None or not name.startswith(others))
    }
    missing = sorted(needed.keys() - present.keys())
    if missing:
        raise AudioProjectionError(
            f"{files.folder}: {len(missing)} of {len(needed)} tensors are missing: {_some(missing)}; "
            "the checkpoint is incomplete or does not belong to its config.json"
        )
    misshapen = [
        f"{name} is {list(present[name])}, config.json needs {list(shape)}"
        for name, shape in sorted(needed.items())
        if present[name] != shape
    ]
    if misshapen:
        raise AudioProjectionError(f"{files.folder}: wrong shape: {_some(misshapen)}")
    unknown = sorted(present.keys() - needed.keys())
    if unknown:
        raise AudioProjectionError(
            f"{files.folder}: {len(unknown)} tensors that this config.json has no use for: {_some(unknown)}"
        )


def _some(items: list[str], most: int = 3) -> str:
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest
