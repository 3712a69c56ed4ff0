"""What the tasks print: plan, configuration, images, artifacts. Text from data, nothing else."""

import json
from collections.abc import Sequence
from typing import Any

import yaml

from edgebuild.model import Environment
from edgebuild.plan import Plan

NO_PAYLOAD = "the images carry the name of a Kubernetes version, and no Kubernetes: kubernetes.payload is none"


def plan_json(plan: Plan) -> str:
    """The plan for programs."""
    return json.dumps(plan.to_json(), indent=2) + "\n"


def plan_text(plan: Plan, environment: Environment) -> str:
    """The plan for people: a block for each target."""
    lines = [f"environment {plan.environment}, release {plan.release}, {plan.platform}"]
    if environment.kubernetes.payload == "none":
        lines.append(f"note: {NO_PAYLOAD}")
    if environment.os.bootstrap:
        lines.append(f"base: Debian {environment.os.bootstrap}, made on this machine from Debian's packages")
    shown: set[tuple[str, str]] = set()
    for target in plan.targets:
        lines.append(f"\n{target.kind:<16} {target.name}")
        lines += [f"  tag            {tag}" for tag in target.tags]
        if target.path:
            lines.append(f"  path           {target.path}")
        if "base" in target.upstream:
            lines.append(f"  base           {target.upstream['base']}")
        for name, image in target.upstream.items():
            # Each of the others once: 58 provider images pull the same ones.
            if name != "base" and (name, image) not in shown:
                shown.add((name, image))
                lines.append(f"  pulls          {image}  ({name})")
    return "\n".join(lines) + "\n"


def configuration_data(environment: Environment) -> dict[str, Any]:
    """The complete configuration; secrets are references and stay so."""
    return environment.model_dump(by_alias=True, mode="json")


def configuration(environment: Environment) -> str:
    """The complete configuration as YAML."""
    return yaml.safe_dump(configuration_data(environment), sort_keys=False, width=118)


def size(bytes_: float) -> str:
    """`1234567` as `1.2 MB`, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if bytes_ < 1000 or unit == "GB":
            return f"{bytes_:.0f} {unit}" if unit == "B" else f"{bytes_:.1f} {unit}"
        bytes_ /= 1000
    raise AssertionError("unreachable")


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows with aligned columns, the first row being the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def age(seconds: float) -> str:
    """`200` as `3 minutes`: whole units, the largest that fits."""
    for name, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {name}"
    return f"{max(seconds, 0):.0f} seconds"
