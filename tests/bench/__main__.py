"""`nox -s bench`: what edgebuild costs against what one would use instead, each pair measured in this one run.

Names of benchmarks as arguments measure only these. The table goes to standard output, and with the picture to docs/.
The exit code is 1 when a goal is not met.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence

from edgebuild.engine import ensure_engine
from edgebuild.host import Consent
from tests.bench import report
from tests.bench.catalogue import BENCHMARKS
from tests.bench.machine import Bench, open_bench
from tests.bench.suite import Benchmark
from tests.conftest import ROOT


def main(names: Sequence[str]) -> int:
    """Measure, print, write."""
    if unknown := [name for name in names if name not in BENCHMARKS]:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's Python keeps what it has compiled
    chosen = [BENCHMARKS[name] for name in BENCHMARKS if name in names or not names]
    ensure_engine(ROOT, Consent(lambda line: print(line, file=sys.stderr), None, os.environ))
    results: list[report.Result] = []
    failed: list[str] = []
    try:
        with open_bench() as bench:
            bench.say(f"{len(chosen)} benchmarks, about {sum(each.seconds for each in chosen) / 60:.0f} minutes")
            for number, each in enumerate(chosen, 1):
                bench.say(f"[{number}/{len(chosen)}] {each.name}: about {each.seconds} s")
                _measure(bench, each, results, failed)
    except KeyboardInterrupt:
        print("interrupted; docs/ is as it was, and what was made here is removed", file=sys.stderr)
        return 130
    order = [(each.name, row.what) for each in BENCHMARKS.values() for row in each.rows]
    rows = report.merge(report.read(report.DOCS), results, order)
    report.write(report.DOCS, rows)
    for result in results:
        print(report.line(result))
    for line in failed:
        print(f"FAILED {line}")
    missed = [result for result in results if not result.met]
    print(f"\n{len(results) - len(missed)} of {len(results)} rows as they should be; docs/{report.PAGE}")
    return 1 if missed or failed else 0


def _measure(bench: Bench, each: Benchmark, results: list[report.Result], failed: list[str]) -> None:
    """One benchmark's rows; when it breaks, the others are still measured."""
    started = time.monotonic()
    try:
        measured = each.measure(bench)
        assert len(measured) == len(each.rows), f"{each.name} gave {len(measured)} rows"
    except Exception as error:
        failed.append(f"{each.name}: {(str(error).splitlines() or [type(error).__name__])[0]}")
        bench.say(f"FAILED {each.name}: {type(error).__name__}: {error}")
        return
    found = [
        report.Result(each.name, row, one, report.today(), report.machine())
        for row, one in zip(each.rows, measured, strict=True)
    ]
    for result in found:
        bench.say(report.line(result))
    results += found
    bench.say(f"  {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
