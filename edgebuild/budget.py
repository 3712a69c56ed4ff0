"""The disk budget of the configuration: before a build what is superseded goes, and what does not fit is refused."""

from collections.abc import Sequence

from edgebuild.belongings import look, own_tags
from edgebuild.cleaning import engine, prune, reclaimable, remove
from edgebuild.clearance import held, parse_size
from edgebuild.errors import BuildError
from edgebuild.report import count, size
from edgebuild.session import Session


def make_room(sessions: Sequence[Session], needed: int) -> None:
    """Let results and images of this repository, and the `needed` bytes of a build, fit limits.disk.

    Removes superseded images, the oldest first, then cache of a builder of our own. Raises BuildError when it does
    not fit even so.
    """
    limits = [parse_size(each.environment.limits.disk) for each in sessions if each.environment.limits.disk]
    if not limits:
        return
    first, limit = sessions[0], min(limits)
    room, own = limit - needed, {each.plan.environment: own_tags(each) for each in sessions}
    # Of environments that are not built now nothing goes: they may be at work.
    others = {path.name: () for path in (first.root / "build").iterdir() if path.is_dir() and path.name[0] != "."}
    builders = sorted({each.environment.builder for each in sessions if each.environment.builder})
    with engine(first) as client:
        found = look(first.root, {**others, **own}, client)
        cached = sum(map(reclaimable, builders))
        if held(found.entries, found.elsewhere) + cached <= room:
            return
        old = [entry for entry in found.entries if entry.superseded and entry.environment in own]
        old.sort(key=lambda entry: entry.age_seconds)
        left, gone = list(found.entries), []
        while old and held(left, found.elsewhere) > room:
            gone.append(old.pop())
            left.remove(gone[-1])
        taken = held(left, found.elsewhere)
        if taken > room:
            raise BuildError(
                f"limits.disk is {size(limit)}: this build may need {size(needed)}, and results and images of this "
                f"repository take {size(taken)} without those that later builds have replaced",
                hint="./inv clean --env all --older-than 7d --dry-run shows what can go; or raise limits.disk",
            )
        if gone:
            first.say(
                f"limits.disk is {size(limit)}: removing {count(len(gone), 'image')} that later builds have replaced"
            )
            remove(first.root, gone, found)
        for builder in builders if cached > room - taken else ():
            keep = (room - taken) // len(builders)
            first.say(f"limits.disk is {size(limit)}: {size(keep)} stay of the cache of the builder {builder}")
            prune(builder, keep=keep)
