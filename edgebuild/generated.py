"""Files that are generated from the code, so that they cannot be wrong."""

import json
from pathlib import Path
from typing import Any

from edgebuild import arguments
from edgebuild.model import Environment


def files() -> dict[str, str]:
    """Path below the root to text."""
    return {
        "config/schema.json": json.dumps(_schema(), indent=2) + "\n",
        "docs/arguments.md": arguments.documentation(),
    }


def _schema() -> dict[str, Any]:
    """JSON Schema of an environment file, for editors: every key may be left out."""
    schema = Environment.model_json_schema(by_alias=True, mode="validation")
    for section in [schema, *schema.get("$defs", {}).values()]:
        section.pop("required", None)
    version = schema["$defs"]["Os"]["properties"]["version"]
    version["type"] = ["string", "number"]
    schema["required"] = ["schema"]
    return schema


def write(root: Path) -> list[str]:
    """Write all of them; the paths that changed."""
    changed = []
    for path, text in files().items():
        file = root / path
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed
