"""What the tasks print: plan, configuration, images, artifacts. Text from data, nothing else."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from edgebuild.forecast import Forecast
from edgebuild.model import Environment
from edgebuild.plan import Plan

NAMED = 8  # targets or reasons in one line of what is decided
NO_PAYLOAD = "the images carry the name of a Kubernetes version, and no Kubernetes: kubernetes.payload is none"


Reasons = Mapping[str, Sequence[str]]  # target to why it must be built; none: its last result stands


def plan_json(plan: Plan, reasons: Reasons | None = None, expected: Forecast | None = None) -> str:
    """The plan for programs; with `reasons` each target that was looked at has a state."""
    found = plan.to_json()
    for target in found["targets"]:
        if reasons is not None and target["name"] in reasons:
            target["state"] = "build" if reasons[target["name"]] else "cached"
            target["reasons"] = list(reasons[target["name"]])
    if expected:
        found["expected"] = {"seconds": expected.seconds, "bytes": expected.size_bytes}
    return json.dumps(found, indent=2) + "\n"


def decisions(reasons: Reasons, expected: Forecast) -> list[str]:
    """What is cached, and what is built because of what: a line for each group of targets and each reason."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, why in reasons.items():
        groups.setdefault(tuple(why), []).append(name)
    found = []
    for why, names in groups.items():
        shown = ", ".join(names) if len(names) < NAMED else f"{names[0]} to {names[-1]}, {len(names)} targets"
        if not why:
            found.append(f"cached  {shown}")
        elif len(why) == 1:
            found.append(f"build   {shown}, because {why[0]}")
        else:
            more = [f"and {len(why) - NAMED} more: ./inv plan --why {names[0]}"] if len(why) > NAMED else []
            found += [f"build   {shown}, because", *(f"          {each}" for each in [*why[:NAMED], *more])]
    if any(groups):
        found.append(forecast_text(expected))
    return found


def forecast_text(expected: Forecast) -> str:
    """What is to be expected, in words."""
    seconds, size_bytes = expected.seconds, expected.size_bytes
    took = "no earlier run tells how long" if seconds is None else f"about {duration(seconds)}"
    return took + ("" if size_bytes is None else f", {size(size_bytes)}") + (" by earlier runs" if seconds else "")


def duration(seconds: float) -> str:
    """`75` as `1 min 15 s`."""
    minutes, rest = divmod(max(round(seconds), 1), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def plan_text(plan: Plan, environment: Environment, reasons: Reasons | None = None) -> str:
    """The plan for people: a block for each target; with `reasons` each says whether it must be built, and why."""
    lines = [f"environment {plan.environment}, release {plan.release}, {plan.platform}"]
    if environment.kubernetes.payload == "none":
        lines.append(f"note: {NO_PAYLOAD}")
    if environment.os.bootstrap:
        lines.append(f"base: Debian {environment.os.bootstrap}, made on this machine from Debian's packages")
    shown: set[tuple[str, str]] = set()
    for target in plan.targets:
        lines.append(f"\n{target.kind:<16} {target.name}")
        if reasons is not None and target.name in reasons:
            why = list(reasons[target.name])
            lines.append(f"  {'build, because' if why else 'cached'}" + (f" {why[0]}" if why else ""))
            lines += [f"                 {each}" for each in why[1:]]
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


def count(number: int, noun: str) -> str:
    """`1 image`, `2,000 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
