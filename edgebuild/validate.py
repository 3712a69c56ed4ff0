"""The gate before a release: everything that can be checked without an engine. Run by `nox -s validate`."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from edgebuild import generated
from edgebuild.config import environment_names, load_environment
from edgebuild.errors import EdgebuildError
from edgebuild.plan import make_plan
from edgebuild.render import TEMPLATES, template_environment
from edgebuild.session import Session, prepare, read_lock

ROOT = Path(__file__).parent.parent
FOLDER = "build/.validate"


def problems(root: Path, folder: Path) -> Iterator[str]:
    """Everything wrong in the repository; rendered inputs are left in `folder` for other checkers."""
    jinja = template_environment()
    for template in sorted(TEMPLATES.glob("*.j2")):
        try:
            jinja.get_template(template.name)
        except Exception as error:  # a template can fail in any way
            yield f"edgebuild/templates/{template.name}: {error}"
    for name in environment_names(root):
        yield from _environment_problems(root, folder, name)
    for path, text in generated.files().items():
        file = root / path
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            yield f"{path} is not what the code generates; run ./inv config.generate"


def _environment_problems(root: Path, folder: Path, name: str) -> Iterator[str]:
    """Each environment as it is, and on every release that has its distribution."""
    releases = sorted(path.stem for path in (root / "config/releases").glob("*.yaml"))
    for release in ["", *releases]:
        settings = [f"release={release}", "kubernetes.versions=all", "os.version=" + _version(root, name, release)]
        try:
            environment = load_environment(root, name, environ={}, settings=settings if release else [])
            lock = None if release else read_lock(root, name, environment)
            session = Session(root, environment, make_plan(name, environment), lock=lock)
            texts = prepare(session, with_secrets=False).texts
        except EdgebuildError as error:
            yield f"environment {name}{f' on {release}' if release else ''}: {error}"
            continue
        target = folder / f"{name}-{release or 'own'}"
        target.mkdir(parents=True)
        for file, text in texts.items():
            (target / file).write_text(text, encoding="utf-8")


def _version(root: Path, name: str, release: str) -> str:
    """The first version of the environment's distribution that this release has."""
    if not release:
        return ""
    own = load_environment(root, name, environ={})
    there = load_environment(root, "demo", environ={}, settings=[f"release={release}"])
    known = there.distributions[own.os.distribution].versions
    return own.os.version if own.os.version in known else known[0]


def main() -> int:
    """Print the problems; the exit code of the check."""
    folder = ROOT / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    found = list(problems(ROOT, folder))
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201
    if not found:
        print(f"{len(list(folder.iterdir()))} environments render, and their inputs are valid")  # noqa: T201
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main())
