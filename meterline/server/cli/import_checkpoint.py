"""How far an import came, kept outside the data: `$XDG_STATE_HOME/meterline/imports/*.json`.

A checkpoint only saves time. It is used when the file still begins with the same bytes, the same
rows would be made of it, and the server still has the last event that it acknowledged; otherwise
the import starts at the first row, and the server recognises what it has.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The first `rows` rows are done; (`source`, `event_id`) is the last stored event of them."""

    rows: int
    source: str
    event_id: str
    head: str


def state_dir() -> Path:
    """Where checkpoints live."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "meterline" / "imports"


class CheckpointFile:
    """The checkpoint of one import: of a file, with a mapping, into a server."""

    def __init__(self, directory: Path, file: Path, job: str) -> None:
        name = hashlib.sha256(f"{file.resolve()}\n{job}".encode()).hexdigest()[:32]
        self._path = directory / f"{name}.json"
        with file.open("rb") as stream:
            self.head = hashlib.sha256(stream.read(_HEAD_BYTES)).hexdigest()

    def load(self) -> Checkpoint | None:
        """The saved checkpoint, None when there is none for this content."""
        try:
            saved = Checkpoint(**json.loads(self._path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return saved if saved.head == self.head and saved.rows > 0 else None

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint in one step."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(f".{os.getpid()}.tmp")
        fresh.write_text(json.dumps(asdict(checkpoint)))
        fresh.replace(self._path)

    def clear(self) -> None:
        """Forget it: the import is complete."""
        self._path.unlink(missing_ok=True)
