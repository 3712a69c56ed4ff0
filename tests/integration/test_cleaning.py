"""Make room on the real engine: what goes is this repository's own, was shown first, and is what was asked for."""

import contextlib
import io
import os
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docker
import pytest

from edgebuild import budget, cleaning
from edgebuild.errors import BuildError, InputError
from edgebuild.madehere import note_made
from edgebuild.session import Session, open_session
from tests.conftest import Workspace, copy_repository

NAME = "tidy"
CONFIG = """
os: {distribution: debian, version: "12", bootstrap: bookworm}
kubernetes: {distribution: k3s, versions: ["1.31.1", "1.32.1"], payload: none}
image: {registry: registry.example.com/edgebuild-tests, repository: tidy, tag: t}
iso: {name: tidy, epoch: 1704067200}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = copy_repository(tmp_path_factory.mktemp("cleaning"))
    workspace.write(f"config/{NAME}.yaml", CONFIG)
    return workspace


class Belonging:
    """Images and files of the environment, made without building."""

    def __init__(self, engine: Any, workspace: Workspace) -> None:
        self.engine, self.workspace = engine, workspace
        self.session = open_session(workspace.root, NAME, [])
        self.tags = [target.tags[0] for target in self.session.plan.of_kind("provider-image")]
        self.made: list[str] = []

    def image(self, name: str, size: int) -> str:
        """An image of one file; returns its id. Without a name when it is empty."""
        with io.BytesIO() as buffer:
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                entry = tarfile.TarInfo("content")
                entry.size = size
                tar.addfile(entry, io.BytesIO(os.urandom(size)))
            made = f"edgebuild-tests/tidy:{len(self.made)}"
            self.engine.api.import_image_from_data(buffer.getvalue(), repository="edgebuild-tests/tidy", tag=made[-1])
        id_ = str(self.engine.api.inspect_image(made)["Id"])
        if name:
            self.engine.api.tag(id_, *name.rsplit(":", 1))
        self.engine.api.remove_image(made, noprune=True) if name else self._nameless(made)
        self.made.append(id_)
        return id_

    def _nameless(self, name: str) -> None:
        """Give its name to another image, as a build does."""
        with io.BytesIO() as buffer:
            tarfile.open(fileobj=buffer, mode="w").close()
            self.engine.api.import_image_from_data(buffer.getvalue(), repository="edgebuild-tests/tidy", tag=name[-1])
        self.engine.api.remove_image(name)

    def there(self, images: Sequence[str]) -> list[bool]:
        found = {each["Id"] for each in self.engine.api.images()}
        return [image in found for image in images]


@pytest.fixture
def tidy(engine: Any, repository: Workspace) -> Iterator[Belonging]:
    """Results, logs, an image with a name and one that a later build has replaced."""
    repository.call("render", "--env", NAME)
    belonging = Belonging(engine, repository)
    repository.write(f"build/{NAME}/logs/build-old.log", "x" * 100)
    repository.write(f"build/{NAME}/logs/build-new.log", "y")
    long_ago = time.time() - 30 * 86400
    os.utime(repository.result(NAME, "logs/build-old.log"), (long_ago, long_ago))
    yield belonging
    for image in belonging.made:
        with contextlib.suppress(docker.errors.ImageNotFound):
            engine.api.remove_image(image, force=True)


def test_all_of_an_environment_and_nothing_else(tidy: Belonging) -> None:
    named, old, others = tidy.image(tidy.tags[0], 3000), tidy.image("", 2000), tidy.image("", 1000)
    note_made(tidy.workspace.root, NAME, [old])
    note_made(tidy.workspace.root, "another", [others])
    result = tidy.workspace.call("clean", "--env", NAME)
    *removed, last = result.stdout.splitlines()
    assert set(removed) == {f"removed {tidy.tags[0]}", f"removed {old[7:19]}"}
    assert last == f"removed build/{NAME}"
    for line in ("3.0 kB", "2.0 kB", f"superseded image {old[7:19]}", "together:"):
        assert line in result.stderr
    assert tidy.there([named, old, others]) == [False, False, True]
    assert not tidy.workspace.result(NAME, "").exists()


def test_a_dry_run_shows_and_leaves_all(tidy: Belonging) -> None:
    images = [tidy.image(tidy.tags[0], 10), tidy.image("", 10)]
    note_made(tidy.workspace.root, NAME, images[1:])
    before = sorted(path for path in tidy.workspace.result(NAME, "").rglob("*"))
    result = tidy.workspace.call("clean", "--env", NAME, "--dry-run", "--cache")
    assert f"results build/{NAME}" in result.stdout
    assert f"image {tidy.tags[0]}" in result.stdout
    assert "build cache of the engine's own builder, which other projects may use too" in result.stdout
    assert "removed" not in result.stdout + result.stderr
    assert tidy.there(images) == [True, True]
    assert sorted(path for path in tidy.workspace.result(NAME, "").rglob("*")) == before


def test_by_age(tidy: Belonging) -> None:
    """Of the images none is as old: the date of a reproducible image is not its age."""
    images = [tidy.image(tidy.tags[0], 10), tidy.image("", 10)]
    note_made(tidy.workspace.root, NAME, images[1:])
    result = tidy.workspace.call("clean", "--env", NAME, "--older-than", "7d")
    assert result.stdout.splitlines() == [f"removed build/{NAME}/logs/build-old.log"]
    assert tidy.there(images) == [True, True]
    assert tidy.workspace.result(NAME, "inputs/Dockerfile").exists()
    again = tidy.workspace.call("clean", "--env", NAME, "--older-than", "7d")
    assert again.stdout == "nothing to remove\n"


def test_by_size_what_is_superseded_goes_first(tidy: Belonging) -> None:
    images = [tidy.image(tidy.tags[0], 3_000_000), tidy.image("", 2_000_000)]
    note_made(tidy.workspace.root, NAME, images[1:])
    tidy.workspace.call("clean", "--env", NAME, "--keep", "4MB")
    assert tidy.there(images) == [True, False]
    assert tidy.workspace.result(NAME, "logs/build-old.log").exists()
    tidy.workspace.call("clean", "--env", NAME, "--keep", "1MB")
    assert tidy.there(images) == [False, False]


def test_results_alone_go_and_the_next_run_finds_its_folder(tidy: Belonging) -> None:
    long_ago = time.time() - 30 * 86400
    os.utime(tidy.workspace.result(NAME, ".current/artifacts.json"), (long_ago, long_ago))
    result = tidy.workspace.call("clean", "--env", NAME, "--older-than", "7d")
    assert f"removed the results in build/{NAME}" in result.stdout
    assert tidy.workspace.result(NAME, "logs/build-new.log").exists()
    assert not tidy.workspace.result(NAME, "inputs").is_symlink()
    tidy.workspace.call("render", "--env", NAME)
    assert tidy.workspace.result(NAME, "inputs/Dockerfile").exists()


def test_an_image_in_use_stays_and_is_named(tidy: Belonging, engine: Any) -> None:
    image = tidy.image(tidy.tags[0], 10)
    container = engine.api.create_container(image, ["none"])["Id"]
    try:
        result = tidy.workspace.call("clean", "--env", NAME)
        # The name goes; the image stays for the container.
        assert f"removed {tidy.tags[0]}" in result.stdout or f"left {tidy.tags[0]}: " in result.stdout
        assert tidy.there([image]) == [True]
    finally:
        engine.api.remove_container(container)


def test_the_person_is_asked(tidy: Belonging, capsys: pytest.CaptureFixture[str]) -> None:
    image = tidy.image(tidy.tags[0], 10)
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    session = tidy.session
    on_terminal = Session(session.root, session.environment, session.plan, say=asked.append, ask=no)
    cleaning.clean([on_terminal], cleaning.Options())
    assert "together: " in asked[0]
    assert asked[1:] == ["Remove this?", "nothing was removed"]
    assert tidy.there([image]) == [True]
    cleaning.clean([on_terminal], cleaning.Options(yes=True))
    assert tidy.there([image]) == [False]
    assert asked.count("Remove this?") == 1
    assert f"removed {tidy.tags[0]}" in capsys.readouterr().out


def test_without_an_engine_the_files_go(tidy: Belonging) -> None:
    nowhere = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
    result = tidy.workspace.call("clean", "--env", NAME, env=nowhere)
    assert "images are left: " in result.stderr
    assert result.stdout == f"removed build/{NAME}\n"


@pytest.mark.parametrize(("option", "value"), [("--older-than", "soon"), ("--keep", "much")])
def test_no_age_and_no_size(tidy: Belonging, option: str, value: str) -> None:
    result = tidy.workspace.call("clean", "--env", NAME, option, value, check=False)
    assert result.returncode == InputError.exit_code
    assert f"such as {option}" in result.stderr
    assert tidy.workspace.result(NAME, "inputs/Dockerfile").exists()


def test_a_base_of_no_environment_goes_with_the_caches(tidy: Belonging) -> None:
    root = tidy.workspace.root
    unused = tidy.workspace.write("build/.cache/bootstrap/sid-amd64/base.tar", "x")
    used = tidy.workspace.write("build/.cache/bootstrap/bookworm-amd64/.test", "x")
    packed = tidy.workspace.write("build/.cache/push/packed/abc.gz", "x")
    from edgebuild.belongings import caches

    assert {entry.name for entry in caches(root)} == {
        str(unused.parent.relative_to(root)),
        str(packed.relative_to(root)),
    }
    tidy.workspace.write("config/broken.yaml", "os: [")
    assert {entry.name for entry in caches(root)} == {str(packed.relative_to(root))}
    Path(root, "config/broken.yaml").unlink()
    assert used.exists()


def test_a_budget_removes_what_later_builds_have_replaced(tidy: Belonging) -> None:
    """The oldest first, and no more than must go; then the build is refused."""
    said: list[str] = []
    named = tidy.image(tidy.tags[0], 4_000_000)
    old, newer = tidy.image("", 3_000_000), tidy.image("", 2_000_000)
    note_made(tidy.workspace.root, NAME, [old])
    note_made(tidy.workspace.root, NAME, [newer])

    def limited(limit: str) -> Session:
        found = open_session(tidy.workspace.root, NAME, [f"limits.disk={limit}"])
        return Session(found.root, found.environment, found.plan, say=said.append)

    budget.make_room([limited("10MB")], 500_000)
    assert tidy.there([named, old, newer]) == [True, True, True]
    budget.make_room([limited("10MB")], 1_500_000)
    assert tidy.there([named, old, newer]) == [True, False, True]
    assert said == ["limits.disk is 10.0 MB: removing 1 image that later builds have replaced"]
    with pytest.raises(BuildError, match=r"limits.disk is 5.0 MB: this build may need 3.0 MB") as caught:
        budget.make_room([limited("5MB")], 3_000_000)
    assert "./inv clean" in caught.value.hint
    assert tidy.there([named, newer]) == [True, True]  # what would not suffice stays


def test_a_build_beyond_the_budget_is_refused(tidy: Belonging) -> None:
    result = tidy.workspace.call("build-provider-images", "--env", NAME, "--set", "limits.disk=1MB", check=False)
    assert result.returncode == BuildError.exit_code
    assert "limits.disk is 1.0 MB: this build may need " in result.stderr
    assert "raise limits.disk" in result.stderr
    wrong = tidy.workspace.call("plan", "--env", NAME, "--set", "limits.disk=lots", check=False)
    assert wrong.returncode == InputError.exit_code
    assert "expected a size such as 100GB" in wrong.stderr
