"""What this environment's checks have found already, by the content they looked at; so nothing is checked twice."""

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1  # a higher number forgets what earlier versions of the checks have passed


@dataclass(frozen=True)
class Records:
    """The folder build/<environment>/records/: one small file for each check that passed."""

    folder: Path

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """What was noted when `key` (a digest) passed this kind of check; None when it has not."""
        try:
            found = json.loads(self._file(kind, key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return (
            found if isinstance(found, dict) and found.get("format") == FORMAT and found.get("key") == key else None
        )

    def add(self, kind: str, key: str, **noted: Any) -> None:
        """Note that `key` has passed; appears whole or not at all."""
        file = self._file(kind, key)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Two threads may note the same content at once.
        partial = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}")
        partial.write_text(json.dumps({"format": FORMAT, "key": key, **noted}) + "\n", encoding="utf-8")
        partial.replace(file)

    def _file(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key.removeprefix('sha256:')}.json"
