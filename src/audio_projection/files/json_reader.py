"""Reading JSON files, with errors that name the file and the way on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from audio_projection.errors import AudioProjectionError


def read_json(path: str | Path) -> Any:
    """The value in a JSON file; AudioProjectionError when it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise AudioProjectionError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise AudioProjectionError(f"{path} is not valid JSON ({error}); write or download it again") from error


def read_json_object(path: Path, owner: str) -> dict[str, Any]:
    """The JSON object in `path`, a file that `owner` must have; AudioProjectionError when there is none."""
    if not path.is_file():
        raise AudioProjectionError(f"{path} is missing, so {path.parent} is not {owner}")
    values = read_json(path)
    if not isinstance(values, dict):
        raise AudioProjectionError(f"{path} holds no JSON object; download it again")
    return values
