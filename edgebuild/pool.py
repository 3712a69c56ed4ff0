"""Groups of work spread over builders: a queue, so many threads as the builders have jobs, and who is lost."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Any, Generic, TypeVar

from edgebuild.errors import EdgebuildError, ToolError
from edgebuild.placement import Group, Place, place
from edgebuild.run import running, stop

Result = TypeVar("Result")


class BuilderLost(ToolError):
    """A builder cannot be reached, or went away: its work belongs on another one of the same platform."""


@dataclass
class Pool(Generic[Result]):
    """`build` builds one group on the builder of this name. `lost` is builder to why, before and while we build."""

    places: Sequence[Place]
    build: Callable[[str, Group], Result]
    say: Callable[[str], None]
    lost: dict[str, str] = field(default_factory=dict)

    def work_through(
        self, groups: Sequence[Group], *, stop_at: Callable[[Result], bool] = lambda _: False
    ) -> list[tuple[Group, str, Result]]:
        """Build all of it: each group with the builder that did, and what came of it, in order of their ends.

        `stop_at` says of a result that nothing more is to begin. Raises ToolError when no builder of a platform is
        left, and what `build` raises but for BuilderLost; whatever else is at work is ended then.
        """
        others = running()
        waiting, results = list(groups), list[tuple[Group, str, Result]]()
        at_work: dict[Future[Result], tuple[Group, Place]] = {}
        with ThreadPoolExecutor(max(1, sum(each.jobs for each in self.places))) as threads:
            try:
                while waiting or at_work:
                    self._begin(threads, waiting, at_work)
                    done, _ = wait(at_work, return_when=FIRST_COMPLETED)
                    for future in done:
                        group, where = at_work.pop(future)
                        try:
                            results.append((group, where.name, future.result()))
                        except BuilderLost as error:
                            self._lose(where, error)
                            waiting.insert(0, group)
                            continue
                        if stop_at(results[-1][2]):
                            waiting.clear()
            except BaseException:
                _end(at_work, others)
                raise
        return results

    def _begin(
        self,
        threads: ThreadPoolExecutor,
        waiting: list[Group],
        at_work: dict["Future[Result]", tuple[Group, Place]],
    ) -> None:
        """Begin all that there is room for."""
        alive = [each for each in self.places if each.name not in self.lost]
        for group in waiting:
            if not any(group.platform in each.platforms for each in alive):
                raise none_left(group.platform, self.places, self.lost)
        busy = Counter(where.name for _, where in at_work.values())
        while chosen := place(waiting, alive, busy):
            group, where = chosen
            waiting.remove(group)
            busy[where.name] += 1
            at_work[threads.submit(self.build, where.name, group)] = (group, where)

    def _lose(self, where: Place, error: EdgebuildError) -> None:
        if where.name not in self.lost:
            self.lost[where.name] = error.message.splitlines()[0]
            self.say(f"builder {where.name} is left out, its work goes to another: {self.lost[where.name]}")


def _end(at_work: Collection[Future[Any]], others: Collection[Popen[Any]]) -> None:
    """End what is at work: else the threads wait for their builds, and we for the threads. `others` are not ours."""
    for future in at_work:
        future.cancel()
    while at_work and wait(at_work, timeout=1).not_done:
        for child in running():  # again and again: what ends may be followed by another
            if child not in others:
                stop(child)


def none_left(platform: str, places: Sequence[Place], lost: Mapping[str, str]) -> ToolError:
    """No builder of this platform can be used: all of them, and why."""
    reasons = [f"{each.name}: {lost[each.name]}" for each in places if platform in each.platforms]
    head = f"no builder is left for {platform}"
    return ToolError("\n  ".join([head, *reasons]), hint="./inv builder.check; what is built already stays in caches")
