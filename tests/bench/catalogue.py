"""All benchmarks, in the order of the table."""

from tests.bench import builders, builds, checks, isos, programs, registries

ALL = (
    *builds.BENCHMARKS,
    *isos.BENCHMARKS,
    *registries.BENCHMARKS,
    *programs.BENCHMARKS,
    *builders.BENCHMARKS,
    *checks.BENCHMARKS,
)
BENCHMARKS = {each.name: each for each in ALL}
