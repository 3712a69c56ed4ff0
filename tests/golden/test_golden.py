"""What each environment renders, as files to review: `nox -s golden` writes them anew."""

from pathlib import Path

import pytest

from edgebuild import report
from edgebuild.config import load_environment
from edgebuild.grub import render_menu
from edgebuild.inputs import Inputs
from edgebuild.plan import make_plan
from edgebuild.render import render_dockerfile, render_profile

FOLDER = Path(__file__).parent
AT = "example.com"
MIRRORS = (
    f'registries.mirrors={{"docker.io": "registry.{AT}/docker.io", "us-docker.pkg.dev": "registry.{AT}/palette"}}',
    f'package_mirrors={{"debian": "http://packages.{AT}/debian", "ubuntu": "http://packages.{AT}/ubuntu"}}',
    f"package_mirrors.opensuse-leap=https://packages.{AT}/opensuse",
    "offline=true",
)
CASES = {
    "demo": ("demo", ()),
    "basic": ("basic", ()),
    "basic-v3.4.3": ("basic", ("release=v3.4.3", "kubernetes.versions=all")),
    "basic-v4.10.0-rc.10": ("basic", ("release=v4.10.0-rc.10",)),
    "advanced": ("advanced", ()),
    "basic-offline": ("basic", MIRRORS),
    "advanced-offline": ("advanced", MIRRORS),
}


@pytest.mark.parametrize("case", CASES)
def test_rendered(root: Path, case: str, request: pytest.FixtureRequest) -> None:
    name, settings = CASES[case]
    environment = load_environment(root, name, environ={}, settings=settings)
    plan = make_plan(name, environment)
    source = (root / "Dockerfile.j2").read_text(encoding="utf-8")
    rendered = {
        "Dockerfile": render_dockerfile(plan, environment, Inputs(), source),
        "grub.cfg": render_menu(environment),
        "cluster-profile.yaml": render_profile(environment),
        "plan.json": report.plan_json(plan),
    }
    for file, text in rendered.items():
        golden = FOLDER / case / file
        if request.config.getoption("--update-golden"):
            golden.parent.mkdir(exist_ok=True)
            golden.write_text(text, encoding="utf-8")
        assert golden.read_text(encoding="utf-8") == text, (
            "see what changed with: nox -s golden && git diff tests/golden"
        )
