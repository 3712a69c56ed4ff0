"""Symbolic links of a tree that is not unpacked yet: where they lead. Pure."""

from collections.abc import Mapping

MAX_FOLLOWED = 40  # as in Linux


def leads_out(path: str, links: Mapping[str, str], *, rooted: bool) -> bool:
    """Whether following `path` leaves the tree, on any way through `links` (path of a link to its target).

    Paths are relative to the tree, parts divided by /. In a `rooted` tree an absolute target starts at the tree's own
    root: it becomes the root file system. A circle of links leads nowhere, and so not out.
    """
    here: list[str] = []
    waiting = path.split("/")[::-1]
    followed = 0
    while waiting and followed <= MAX_FOLLOWED:
        part = waiting.pop()
        if part == "..":
            if not here:
                return True
            here.pop()
        elif part not in ("", "."):
            here.append(part)
            target = links.get("/".join(here))
            if target is not None:
                followed += 1
                here.pop()
                if target.startswith("/"):
                    if not rooted:
                        return True
                    here = []
                waiting += target.split("/")[::-1]
    return False
