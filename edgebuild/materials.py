"""What an environment's artifacts are made of, gathered for their content keys: files, digests, settings, secrets."""

import json
from collections.abc import Sequence
from typing import Any

from edgebuild.contents import Contents
from edgebuild.inputs import Inputs
from edgebuild.keyed import Keyed
from edgebuild.keys import Document, SiteFiles, Sources, iso_document, key_of, lines
from edgebuild.session import Prepared, Session
from edgebuild.stages import Stage
from edgebuild.upstream import current_digests


def open_contents(session: Session) -> Contents:
    return Contents(session.root, session.root / "build/.cache/contents.json")


def gather(
    session: Session, prepared: Prepared, stages: Sequence[Stage], contents: Contents, keyed: Keyed
) -> Sources:
    patterns = {pattern for stage in stages for pattern in stage.files}
    references = {image for stage in stages for image in stage.images}
    asked = {name for stage in stages for name in stage.secrets}
    values = prepared.secret_values
    return Sources(
        files={pattern: contents.entries(pattern) for pattern in patterns},
        images=current_digests(references, session.results.records, session.say),
        secrets={name: keyed.digest(values[name].encode()) for name in asked if name in values},
    )


def settings(prepared: Prepared) -> dict[str, dict[str, Any]]:
    """Target to what the bake file asks for beside its stage. The proxy is no part of an image."""
    targets = json.loads(prepared.texts["docker-bake.json"])["target"]
    shared = targets["_pipeline"]
    common = {"platform": shared["platforms"][0], "date": shared["args"]["SOURCE_DATE_EPOCH"]}
    return {
        name: {
            **common,
            "name": target["tags"][0],
            **{f"label {key}": text for key, text in target.get("labels", {}).items()},
        }
        for name, target in targets.items()
        if "tags" in target
    }


def iso_key(session: Session, prepared: Prepared, boot_tree: str, contents: Contents) -> tuple[str, Document]:
    """Key and document of the ISO from a boot tree (its digest); needs the secrets."""
    environment, inputs = session.environment, prepared.inputs
    keyed = Keyed(session.root).digest
    settings = {"name": environment.iso.name, "arch": environment.os.arch, "date": environment.iso.epoch}
    document = iso_document(
        boot_tree,
        settings,
        SiteFiles(
            user_data=lines(prepared.user_data, keyed),
            menu=prepared.texts["grub.cfg"].splitlines(),
            files=_site_files(inputs, contents),
        ),
    )
    return key_of(document), document


def _site_files(inputs: Inputs, contents: Contents) -> dict[str, str]:
    found = contents.entries("overlay/files-iso")
    for path in (*inputs.content, inputs.cluster_definition):
        if path:
            found[path] = contents.digest(contents.root / path)
    return found
