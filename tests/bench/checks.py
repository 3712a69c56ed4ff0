"""What checking costs beside what is checked: secrets, the ISO's bytes, the gate of a push."""

import hashlib
import os
import shutil
import statistics

from edgebuild.results import Results
from edgebuild.scan import search_set
from edgebuild.session import open_session, prepare
from edgebuild.verify import verify_iso
from tests.bench.builds import cold_build
from tests.bench.goals import Measured, Row
from tests.bench.machine import ROUNDS, Bench, Site, paired, timed
from tests.bench.suite import Benchmark, at_most
from tests.integration.images import note_boots
from tests.registry_server import registry_server

READ = 9  # rounds of what takes a fifth of a second


def results_of(site: Site) -> Results:
    return Results(site.root / "build" / site.environment)


def scan(bench: Bench) -> list[Measured]:
    """Of every layer, as after the very first build; and where nothing is new."""
    site, whole_build = bench.demo, cold_build(bench).seconds
    os.environ["BENCH_TOKEN"] = "a registration token: 0123456789"
    session = open_session(site.root, site.environment, ["secrets.edge_host_token=env:BENCH_TOKEN"])
    prepared = prepare(session, with_secrets=True)

    def search() -> None:
        search_set(session, prepared, session.results.current.resolve(), session.results.artifacts())

    def search_all() -> None:
        shutil.rmtree(site.root / "build/.cache/scan", ignore_errors=True)
        search()

    whole = statistics.median(timed(search_all).seconds for _ in range(ROUNDS))
    return [Measured(whole, whole_build), paired(search, lambda: site.call("build-all-images", "--again"))]


def verify(bench: Bench) -> list[Measured]:
    results = results_of(bench.demo)
    iso, entry = results.current.resolve() / "palette-edge-installer.iso", results.artifact("iso")

    def read_and_hash() -> None:
        with iso.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    verify_iso(iso, entry)
    return [paired(lambda: verify_iso(iso, entry), read_and_hash, READ)]


def gate(bench: Bench) -> list[Measured]:
    """A push where nothing has changed, with and without asking whether the set has passed."""
    site = bench.demo
    with registry_server(bench.scratch("gate")) as address:
        setting = ["--set", f"image.registry={address}/{bench.mark}"]
        site.call("build-all-images", *setting)
        note_boots(results_of(site))
        site.call("push", *setting)
        site.call("push", *setting, "--verified")
        found = paired(lambda: site.call("push", *setting, "--verified"), lambda: site.call("push", *setting))
    site.call("build-all-images")
    bench.scratch("gate")
    return [found]


BENCHMARKS = (
    Benchmark(
        "scan",
        25,
        (
            Row("secret scan of every layer", "the cold build", (at_most(1 / 10),)),
            Row("secret scan, nothing new", "build-all-images --again", (at_most(1 / 10),)),
        ),
        scan,
    ),
    Benchmark("verify", 5, (Row("verify of an ISO", "reading and hashing it", (at_most(1.5),)),), verify),
    Benchmark(
        "gate",
        15,
        (Row("push of unchanged images, with the gate", "without it", (at_most(1, plus=1),)),),
        gate,
    ),
)
