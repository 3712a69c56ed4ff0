"""The ISO: put together by xorriso in a tools container, from a boot tree and site files.

The boot tree is the image that the stage `boot-tree` of the Dockerfile makes; it never leaves the engine. xorriso
writes the ISO into a named pipe, and this process writes the file and its checksum at once, so the file belongs to
the user and is read by nobody a second time.
"""

import fcntl
import hashlib
import os
import select
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgebuild.container import container_argv
from edgebuild.errors import BuildError
from edgebuild.run import process, run
from edgebuild.structure import MENU, USER_DATA

PART_BYTES = 3 * 10**9  # Kairos' live system reads content in parts of this size
LABEL = "COS_LIVE"
CIDATA_LABEL = "cidata"
PARTITION_OFFSET = 16  # sectors; a USB stick's first partition starts there, with directories of its own
CONTENT_FOLDER = "/opt/spectrocloud/content"
CLUSTER_DEFINITION = "/opt/spectrocloud/clusterconfig/spc.tgz"
CHUNK = 1 << 20
STRICT = ("-abort_on", "FAILURE", "-outdev", "-", "-md5", "off")
# It looks whether it has finished once in an interval, which is a second unless it is told.
XORRISO = ("xorriso", "-report_about", "WARNING", "-pacifier", "interval=0.1", *STRICT)
PIPE = "iso"
TREE = "tree"
# A container's first process ignores what it does not handle: it would wait for ever at the pipe of a dead reader.
CIDATA_SCRIPT = f"""trap 'exit 143' TERM && exec "$@" > /output/{PIPE}"""
SCRIPT = f"""trap 'exit 143' TERM && cp /boot-tree.sha256 /output/{TREE} && exec "$@" > /output/{PIPE}"""
POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class IsoRequest:
    """What makes one ISO. `image` is the boot tree; paths are on this machine, `overlay` may be None."""

    image: str
    arch: str
    grub_cfg: Path
    user_data: Path
    content: tuple[Path, ...] = ()
    cluster_definition: Path | None = None
    overlay: Path | None = None
    epoch: int


@dataclass(frozen=True, kw_only=True)
class CidataRequest:
    """A small ISO with user-data alone, for an installer without any.

    `image` holds xorriso; `folder` has the files user-data and meta-data.
    """

    image: str
    folder: Path
    epoch: int


@dataclass(frozen=True)
class IsoResult:
    """A written ISO; `sha256` is in hex. `tree` has the hashes that the boot tree's files had when it was made."""

    path: Path
    sha256: str
    size_bytes: int
    seconds: float
    tree: Mapping[str, str]


def content_parts(size: int) -> list[tuple[int, int]]:
    """Offset and length of each part of a content bundle; an empty file is one part."""
    starts = range(0, max(size, 1), PART_BYTES)
    return [(start, min(PART_BYTES, size - start)) for start in starts]


def mounts(request: IsoRequest) -> dict[str, Path]:
    """Path in the container to path on this machine; all are mounted read-only."""
    found = {"/site/grub.cfg": request.grub_cfg, "/site/user-data": request.user_data}
    if request.overlay:
        found["/overlay"] = request.overlay
    if request.cluster_definition:
        found["/site/spc.tgz"] = request.cluster_definition
    # The bundle's own name never reaches docker's mount syntax, in which a comma would end it.
    return {**found, **{f"/content/{number}": path for number, path in enumerate(request.content)}}


def xorriso_argv(request: IsoRequest, *, sizes: Sequence[int], keeps_menu: bool) -> list[str]:
    """The xorriso call inside the container. What differs from site to site stands at the end of the image.

    `sizes` are the bytes of each content bundle; `keeps_menu` says that the overlay brings its own boot menu.
    """
    argv = [*XORRISO, "-volid", LABEL, "-joliet", "on", "-not_leaf", ".gitkeep"]
    argv += ["-map", "/boot-tree", "/", "-rm_r", "/boot/boot_hybrid.img", "--"]
    if request.overlay:
        argv += ["-map", "/overlay", "/"]
    if not keeps_menu:
        argv += ["-map", "/site/grub.cfg", MENU, "-find", MENU, "-exec", "sort_weight", "-1", "--"]
    argv += ["-map", "/site/user-data", USER_DATA]
    argv += ["-find", USER_DATA, "-exec", "sort_weight", "-2", "--"]
    if request.cluster_definition:
        argv += ["-map", "/site/spc.tgz", CLUSTER_DEFINITION]
    for number, (path, size) in enumerate(zip(request.content, sizes, strict=True)):
        for part, (offset, length) in enumerate(content_parts(size)):
            target = f"{CONTENT_FOLDER}/{path.name}_part{part:02d}"
            argv += ["-cut_out", f"/content/{number}", str(offset), str(length), target]
    argv += ["-find", "/", "-exec", "mkisofs_r", "--", "-chmod", "0400", USER_DATA, "--"]
    argv += dates(request.epoch)
    argv += ["-boot_image", "any", f"partition_offset={PARTITION_OFFSET}", "-boot_image", "any", "cat_hidden=on"]
    if request.arch == "amd64":
        argv += ["-boot_image", "grub", "bin_path=/boot/eltorito.img"]
        argv += ["-boot_image", "any", "load_size=2048", "-boot_image", "any", "boot_info_table=on"]
        argv += ["-boot_image", "grub", "grub2_boot_info=on"]
        argv += ["-boot_image", "grub", "grub2_mbr=/boot-tree/boot/boot_hybrid.img", "-boot_image", "any", "next"]
    argv += ["-append_partition", "2", "0xef", "/boot-tree/boot/uefi.img"]
    argv += ["-boot_image", "any", "appended_part_as=gpt"]
    argv += ["-boot_image", "any", "efi_path=--interval:appended_partition_2:all::"]
    argv += ["-boot_image", "any", "platform_id=0xef", "-boot_image", "any", "emul_type=no_emulation"]
    if request.arch == "amd64":
        argv += ["-boot_image", "any", "mbr_force_bootable=on"]
    return argv


def cidata_argv(request: CidataRequest) -> list[str]:
    """The xorriso call for a cloud-init NoCloud volume: user-data and meta-data."""
    argv = [*XORRISO, "-volid", CIDATA_LABEL, "-joliet", "on"]
    argv += ["-map", "/site/user-data", "/user-data", "-map", "/site/meta-data", "/meta-data"]
    argv += ["-find", "/", "-exec", "mkisofs_r", "--", "-chmod", "0400", "/user-data", "--"]
    return argv + dates(request.epoch)


def dates(epoch: int) -> list[str]:
    """Every date of the image is this one, in seconds since 1970."""
    date = time.strftime("%Y%m%d%H%M%S00", time.gmtime(epoch))
    return ["-volume_date", "all_file_dates", f"={epoch}", "-volume_date", "uuid", date]


def keeps_menu(request: IsoRequest) -> bool:
    """Whether the overlay brings its own boot menu."""
    return bool(request.overlay and (request.overlay / MENU[1:]).exists())


def overlay_files(request: IsoRequest) -> dict[str, Path]:
    """The overlay's files by their path on the ISO; links are none."""
    if not request.overlay:
        return {}
    files = (path for path in request.overlay.rglob("*") if path.is_file() and not path.is_symlink())
    return {f"/{path.relative_to(request.overlay)}": path for path in files if path.name != ".gitkeep"}


def command_of(request: IsoRequest) -> list[str]:
    """The xorriso call for the files that are there."""
    sizes = [file.stat().st_size for file in request.content]
    return xorriso_argv(request, sizes=sizes, keeps_menu=keeps_menu(request))


def docker_argv(
    request: "IsoRequest | CidataRequest", name: str, command: Sequence[str], *, output: Path
) -> list[str]:
    """The container around xorriso; its output goes to the named pipe in `output`.

    Docker's own way from a container's output to ours would copy every byte three times.
    """
    return container_argv(
        request.image,
        ["sh", "-c", SCRIPT if isinstance(request, IsoRequest) else CIDATA_SCRIPT, "sh", *command],
        name=name,
        read=mounts(request) if isinstance(request, IsoRequest) else {"/site": request.folder},
        write={"/output": output},
        options=["--env", f"SOURCE_DATE_EPOCH={request.epoch}"],
    )


def assemble(request: IsoRequest, path: Path) -> IsoResult:
    """Write the ISO to `path` and its checksum to `<path>.sha256`. Raises BuildError; a part is removed."""
    _check_space(request, path.parent)
    return _write(request, command_of(request), path)


def assemble_cidata(request: "CidataRequest", path: Path) -> IsoResult:
    """As `assemble`, the small ISO with a site's user-data alone."""
    return _write(request, cidata_argv(request), path)


def _write(request: "IsoRequest | CidataRequest", command: Sequence[str], path: Path) -> IsoResult:
    started = time.monotonic()
    name = f"edgebuild-iso-{uuid.uuid4().hex[:12]}"
    try:
        with tempfile.TemporaryFile() as messages, tempfile.TemporaryDirectory(dir=path.parent) as folder:
            argv = docker_argv(request, name, command, output=Path(folder))
            digest, size = _stream(argv, Path(folder) / PIPE, path, messages.fileno())
            tree = _tree(Path(folder) / TREE)
            messages.seek(0)
            said = messages.read().decode(errors="replace")
        if digest is None:
            raise BuildError(f"the ISO could not be put together; xorriso says:\n{_tail(said)}")
    except BaseException as error:
        path.unlink(missing_ok=True)
        run(["docker", "rm", "--force", name], check=False)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise
    write_checksum(path, digest)
    return IsoResult(path, digest, size, time.monotonic() - started, tree)


def unwritable(path: Path, error: OSError) -> BuildError:
    """What the disk did not take, as an error with a way out."""
    return BuildError(
        f"{path}: cannot be written: {error.strerror}", hint="make room, or clean: ./inv clean --env NAME"
    )


def write_checksum(path: Path, digest: str) -> None:
    """`<path>.sha256`, as `sha256sum -c` reads it; `digest` in hex."""
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n", encoding="ascii")


def _tree(file: Path) -> dict[str, str]:
    """The lines of sha256sum that the boot tree was made with; a container that did not start has written none."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _stream(argv: Sequence[str], pipe: Path, path: Path, messages: int) -> tuple[str | None, int]:
    """Run `argv`, and what it writes to `pipe` into a new file that only the user may read: it holds the token."""
    digest = hashlib.sha256()
    size = 0
    os.mkfifo(pipe, 0o600)
    source = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with (
        os.fdopen(descriptor, "wb", buffering=0) as file,
        os.fdopen(source, "rb", buffering=0) as reader,
        ThreadPoolExecutor(max_workers=1) as hasher,
        process(argv, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages) as child,
    ):
        fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, CHUNK)
        hashed: Future[None] = hasher.submit(digest.update, b"")
        while True:
            ready, _, _ = select.select([reader], [], [], POLL_SECONDS)
            if not ready:
                if child.poll() is not None:  # it ended without opening the pipe
                    break
                continue
            chunk = reader.read(CHUNK)
            if not chunk:
                break
            hashed.result()
            hashed = hasher.submit(digest.update, chunk)
            file.write(chunk)
            size += len(chunk)
        hashed.result()
        child.wait()
        os.fsync(file.fileno())
    return (digest.hexdigest() if child.returncode == 0 else None), size


def _check_space(request: IsoRequest, folder: Path) -> None:
    """The site's files alone must fit; the rest is found out while writing."""
    needed = sum(file.stat().st_size for file in request.content)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BuildError(
            f"{folder}: the ISO needs more than {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            hint="free space, or clean other environments: ./inv clean --env NAME",
        )


def _tail(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-20:])
