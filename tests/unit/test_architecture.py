"""Imports run in one direction, and only `run` starts processes."""

import ast
from pathlib import Path

# A module may import those before it. Pure ones first.
PURE = [
    "errors",
    "values",
    "builderset",
    "model",
    "yamltext",
    "layers",
    "expressions",
    "config",
    "plan",
    "packages",
    "lock",
    "stages",
    "pulls",
    "offline",
    "links",
    "archives",
    "inputs",
    "quoting",
    "render",
    "keys",
    "reasons",
    "shards",
    "imagetree",
    "builders",
    "placement",
    "grub",
    "cloudconfig_keys",
    "cloudconfig",
    "padding",
    "sites",
    "forms",
    "secrets",
    "needles",
]
PURE += [
    "sbom",
    "provenance",
    "arguments",
    "generated",
    "forecast",
    "report",
    "clearance",
    "progress",
    "console",
    "imagecheck",
    "references",
]
EFFECTS = [
    "run",
    "crew",
    "signing",
    "commit",
    "isofile",
    "squashfs",
    "structure",
    "sums",
    "records",
    "madehere",
    "keyed",
    "contents",
    "copying",
    "locking",
    "live",
    "view",
    "bake",
    "host",
    "engine",
    "bootstrap",
    "container",
    "leftovers",
    "iso",
    "registry",
    "localimages",
    "transport",
    "oci",
    "upload",
    "upstream",
    "referrers",
    "narrowing",
    "layout",
    "mirror",
    "attestations",
    "boot",
    "doctor",
    "results",
    "session",
    "pool",
    "preflight",
    "dispatch",
    "materials",
    "assess",
    "space",
    "imagescan",
    "scan",
    "layerstore",
    "packing",
    "sending",
    "pushing",
    "belongings",
    "cleaning",
    "budget",
]
ORDER = [
    *PURE,
    *EFFECTS,
    "seal",
    "gate",
    "documents",
    "verify",
    "images",
    "respin",
    "making",
    "originals",
    "outcome",
    "building",
    "planning",
    "workflow",
    "mirroring",
    "siteindex",
    "siteplan",
    "sitewriter",
    "fleet",
    "pinning",
    "rebuild",
    "checking",
    "delivery",
    "validate",
]
FORBIDDEN = {"subprocess", "docker", "os"}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "edgebuild":
                found |= {f"edgebuild.{alias.name}" for alias in node.names}
    return found


def test_every_module_has_its_place(root: Path) -> None:
    modules = {path.stem for path in (root / "edgebuild").glob("*.py")} - {"__init__"}
    assert modules == set(ORDER)


def test_imports_run_in_one_direction(root: Path) -> None:
    for position, name in enumerate(ORDER):
        own = {
            module.split(".")[1]
            for module in imports(root / f"edgebuild/{name}.py")
            if module.startswith("edgebuild.")
        }
        assert own <= set(ORDER[:position]), name


def test_pure_modules_have_no_effects(root: Path) -> None:
    for name in PURE:
        allowed = {"os"} if name in {"config", "inputs"} else set()  # they read the repository's files
        assert not imports(root / f"edgebuild/{name}.py") & (FORBIDDEN - allowed), name


def test_only_run_starts_processes(root: Path) -> None:
    starters = {"Popen", "call", "check_call", "check_output", "system", "popen"}
    for file in [*(root / "edgebuild").glob("*.py"), root / "tasks.py"]:
        if file.stem == "run":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                assert not (called.value.id in {"subprocess", "os"} and called.attr in starters | {"run"}), file.name


def imports_at_start(file: Path) -> set[str]:
    """What importing the module imports: not what its functions do."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_a_build_begins_without_dockers_sdk(root: Path) -> None:
    """Importing it takes longer than finding that nothing has changed."""
    reached, waiting = set[str](), {"building"}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        found = imports_at_start(root / f"edgebuild/{name}.py")
        assert not {each.split(".")[0] for each in found} & {"docker", "requests"}, name
        waiting |= {each.split(".")[1] for each in found if each.startswith("edgebuild.")} & set(ORDER) - reached


def test_nothing_is_read_at_import(root: Path) -> None:
    """Module level holds definitions and constants: no call that reads the environment or a file."""
    for file in (root / "edgebuild").glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            text = ast.unparse(node)
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.If)):
                for bad in ("os.environ", "getcwd", ".read_text", "open(", "Path.cwd"):
                    assert bad not in text, f"{file.name}: {text}"
