"""Work spread over builders, which sleep instead of computing: this machine has few cores."""

import json
import os
from collections.abc import Sequence

import yaml

from tests.bench import byhand
from tests.bench.goals import Measured, Row
from tests.bench.machine import LABEL, Bench, Site, Timing, paired
from tests.bench.report import TEMPLATES
from tests.bench.standins import versions, with_versions
from tests.bench.suite import Benchmark, at_most
from tests.builderlab import Engine, docker_builders, engines, own_docker_config

BUILDERS = 3
BUILDS = 12
FIRST_NETWORK = 21  # the tests' own engines have lower ones
PROGRAMS = "sh ls find readlink sha256sum cut stat head basename cat sleep mkdir awk"
# As little as passes the check of a host's image: a shell, and what must be there as empty as it may be.
TINY = f"""
mkdir -p /tmp/root && cd /tmp/root
mkdir -p bin usr/bin boot etc lib/modules/1 tmp var/lib/dpkg var/lock
for each in {PROGRAMS}; do
    path=$(readlink -f "$(command -v "$each")")
    cp "$path" "bin/$each"
    ldd "$path" | grep -o '/[^ ]*' || true
done | sort -u | while read -r library; do mkdir -p ".$(dirname "$library")"; cp -L "$library" ".$library"; done
echo kernel > boot/vmlinuz
echo initrd > boot/initrd
printf '#!/bin/sh\\necho dmsquash-live-root\\n' > bin/lsinitrd
chmod 755 bin/lsinitrd
: > etc/machine-id
printf 'ID=debian\\nVERSION_ID="12"\\n' > etc/os-release
printf 'Package: tiny\\nStatus: install ok installed\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n\\n' \\
    > var/lib/dpkg/status
tar --create --file /out/tiny.tar --numeric-owner --owner 0 --group 0 .
"""


def sleeping(bench: Bench) -> Site:
    """An environment of sleeping builds."""
    boot_tree = bench.demo.boot_tree
    site = bench.site("sleeping", bench.demo_config())
    pipeline = (TEMPLATES / "sleeping.Dockerfile.j2").read_text(encoding="utf-8")
    (site.root / "Dockerfile.j2").write_text(pipeline.replace(f"{LABEL}=RUN", f"{LABEL}={os.getpid()}"))
    byhand.in_tools(boot_tree, TINY, site.root)
    return site


def name_builders(site: Site, machines: Sequence[Engine]) -> None:
    """The environment with these builders, one build at a time on each."""
    file = site.root / f"config/{site.environment}.yaml"
    text = yaml.safe_load(file.read_text(encoding="utf-8"))
    text["builders"] = docker_builders(machines, jobs=1)
    text["limits"] = {"jobs": 1}  # targets in one call: a sleeping engine would take all of them at once
    file.write_text(json.dumps(text), encoding="utf-8")


def spread(bench: Bench) -> list[Measured]:
    """Images are brought here in either case."""
    assert os.geteuid() == 0, "it starts engines in networks of their own: run it as root"
    site, fresh = sleeping(bench), iter((20, 30))

    def built_by(machines: Sequence[Engine]) -> Timing:
        name_builders(site, machines)
        return site.call("build-provider-images", *with_versions(versions(next(fresh), BUILDS)))

    with own_docker_config(bench.scratch("docker")), engines(*[None] * BUILDERS, first=FIRST_NETWORK) as machines:
        found = paired(lambda: built_by(machines), lambda: built_by(machines[:1]), 1)
    return [found]


BENCHMARKS = (
    Benchmark(
        "builders",
        120,
        (
            Row(
                f"{BUILDS} independent builds on {BUILDERS} builders",
                "the same on one",
                (at_most(1 / 2.2),),
            ),
        ),
        spread,
    ),
)
