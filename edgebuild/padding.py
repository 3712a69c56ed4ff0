"""Texts of a site in a size that rarely changes: another site's then fits into the same place of an ISO. Pure."""

from edgebuild.cloudconfig import MAX_BYTES

STEP = 4096  # bytes
COMMENT = b"#\n"


def padded(text: bytes) -> bytes:
    """A YAML text or a boot menu, filled up with empty lines to a multiple of STEP; one near Kairos' limit as it is.

    The comment keeps the lines out of a block of YAML that would keep them (`|+`).
    """
    whole = text if text.endswith(b"\n") else text + b"\n"
    whole += COMMENT
    whole += b"\n" * (-len(whole) % STEP)
    return whole if len(whole) < MAX_BYTES else text
