"""Builders."""

from tests.bench.suite import Benchmark

BENCHMARKS: tuple[Benchmark, ...] = ()
