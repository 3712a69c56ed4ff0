"""A fork's edits survive an update of the template: what docs/fork.md promises."""

import shutil
from pathlib import Path

from edgebuild.run import run
from tests.conftest import ROOT

FILES = ("Dockerfile.j2", "user-data.j2", "config/defaults.yaml", "config/basic.yaml")


def git(folder: Path, *argv: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    run(["git", *identity, *argv], cwd=folder)


def test_an_update_merges_without_conflict(tmp_path: Path) -> None:
    template, fork = tmp_path / "template", tmp_path / "fork"
    for name in FILES:
        (template / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, template / name)
    git(template, "init", "--quiet", "--initial-branch=main")
    git(template, "add", "--all")
    git(template, "commit", "--quiet", "--message=template")
    git(tmp_path, "clone", "--quiet", str(template), str(fork))

    own = "RUN sudo zypper install -y wireguard-tools\n"
    (fork / "Dockerfile.j2").write_text((fork / "Dockerfile.j2").read_text() + own)
    (fork / "config/shop.yaml").write_text("schema: 1\n")
    (fork / "user-data.j2").write_text((fork / "user-data.j2").read_text() + "hostname: shop\n")
    git(fork, "add", "--all")
    git(fork, "commit", "--quiet", "--message=own")

    pipeline = (template / "Dockerfile.j2").read_text()
    (template / "Dockerfile.j2").write_text(pipeline.replace("# boot-tools:", "RUN true\n\n# boot-tools:"))
    defaults = (template / "config/defaults.yaml").read_text()
    (template / "config/defaults.yaml").write_text(defaults + "new_key: 1\n")
    git(template, "commit", "--quiet", "--all", "--message=update")

    git(fork, "pull", "--quiet", "--no-rebase", "--no-edit", "origin", "main")
    merged = (fork / "Dockerfile.j2").read_text()
    assert merged.endswith(own)
    assert "RUN true\n\n# boot-tools:" in merged
    assert (fork / "config/shop.yaml").read_text() == "schema: 1\n"
    assert (fork / "user-data.j2").read_text().endswith("hostname: shop\n")
    assert "new_key" in (fork / "config/defaults.yaml").read_text()
