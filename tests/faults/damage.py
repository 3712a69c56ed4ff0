"""Things on the disk that are no more what they were, and a clock that is wrong."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgebuild.config import load_environment
from edgebuild.render import bootstrap_folder
from edgebuild.run import run
from tests.conftest import Workspace
from tests.faults.suite import AGAIN, BUILD, ENVIRONMENT, Suite, call, refused, results_of

LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"

JUMPING = """import os, time
real, real_ns, local, strftime = time.time, time.time_ns, time.localtime, time.strftime
def jump(): return int(open(os.environ["JUMPS"]).read() or 0)
time.time = lambda: real() + jump()
time.time_ns = lambda: real_ns() + jump() * 10**9
time.localtime = lambda seconds=None: local(time.time() if seconds is None else seconds)
time.strftime = lambda form, when=None: strftime(form, time.localtime() if when is None else when)
"""


def change_byte(file: Path) -> None:
    with file.open("r+b") as changed:
        changed.seek(file.stat().st_size // 2)
        byte = changed.read(1)[0]
        changed.seek(-1, 1)
        changed.write(bytes([byte ^ 1]))


def halve(file: Path) -> None:
    with file.open("r+b") as damaged:
        damaged.truncate(file.stat().st_size // 2)


def cached_base(suite: Suite, workspace: Workspace, only: str = "") -> None:
    """The base that was made from packages, all damages or one; the workspace has links to the repository's own."""
    folder = workspace.root / bootstrap_folder(load_environment(workspace.root, ENVIRONMENT, environ={}))
    base, made_from = folder / "base.tar", folder / "made-from.json"
    damages: dict[str, tuple[Path, Callable[[Path], object], str]] = {
        "cached base with another byte": (base, change_byte, "it is damaged"),
        "truncated cached base": (base, halve, "it is damaged"),
        "unreadable record of the cached base": (made_from, lambda file: file.write_text("{"), "cannot be read"),
    }
    for name, (file, damage, says) in damages.items() if not only else [(only, damages[only])]:

        def provoke(file: Path = file, damage: Callable[[Path], object] = damage, says: str = says) -> str:
            own = file.with_name("own")
            shutil.copyfile(file, own)
            own.replace(file)
            damage(file)
            result = call(workspace, *BUILD)
            assert result.returncode == 0, result.stderr
            assert f"{says}; it is made anew" in result.stderr.replace(
                ": its SHA-256 is not the one that was written down", ""
            ), result.stderr
            return "said, and made anew in the same run"

        suite.case(name, provoke, workspace)


def result_set(suite: Suite, workspace: Workspace) -> None:
    """What somebody did to the results; the plain run makes them whole."""
    results = results_of(workspace)

    def damaged_list() -> str:
        (results.current / "artifacts.json").write_text("[{")
        return refused(call(workspace, "verify", "--env", ENVIRONMENT), 5, "artifacts.json")

    def lost_link() -> str:
        results.current.unlink()
        results.current.symlink_to(".sets/none")
        result = call(workspace, "verify", "--env", ENVIRONMENT)
        assert result.returncode == 0, result.stderr
        assert "names no set; the last complete one is" in result.stderr
        return "said, and led to the last complete set again"

    suite.case("damaged artifacts.json", damaged_list, workspace, spared=False)
    suite.case(".current names no set", lost_link, workspace)


def clock(suite: Suite, workspace: Workspace, folder: Path) -> None:
    """Our process in another time; the engine keeps its own."""
    if not Path(LIBRARY).exists():
        run(["apt-get", "install", "--yes", "--no-install-recommends", "faketime"])
    time_file = folder / "time"
    shifted = {"LD_PRELOAD": LIBRARY, "FAKETIME_TIMESTAMP_FILE": str(time_file), "FAKETIME_NO_CACHE": "1"}
    # The library lets the monotonic clock jump, too, which no kernel does; so jumps are made in Python.
    (folder / "sitecustomize.py").write_text(JUMPING)
    jumping = {"PYTHONPATH": str(folder), "JUMPS": str(time_file)}

    def provoke(first: str, then: str, env: dict[str, str]) -> str:
        time_file.write_text(first + "\n")
        jump = {"building ": lambda _: time_file.write_text(then + "\n")}
        result = call(workspace, *AGAIN, env=env, when=jump)
        assert result.returncode == 0, result.stderr
        entries = json.loads((results_of(workspace).current / "artifacts.json").read_text())
        assert all(0 <= entry["seconds"] < 600 for entry in entries), entries
        assert 0 < float(result.stderr.rpartition("done in ")[2].split()[0]) < 600, result.stderr
        return "built, with true durations"

    for name, first, then, how in (
        ("clock seven years ahead", "+7y", "+7y", shifted),
        ("clock five years back", "-5y", "-5y", shifted),
        ("clock jumps an hour back during the run", "0", "-3600", jumping),
        ("clock jumps a year ahead during the run", "0", "31536000", jumping),
    ):
        suite.case(name, partial(provoke, first, then, how), workspace)
