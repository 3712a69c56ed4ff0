"""Whether an image is one that a host can start from: what Kairos's own validator asks, as far as it applies."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

# Kairos boots only with these (kairos-init's validator).
RELEASE_KEYS = (
    *("KAIROS_ID", "KAIROS_ID_LIKE", "KAIROS_NAME", "KAIROS_VERSION", "KAIROS_RELEASE", "KAIROS_ARCH"),
    *("KAIROS_TARGETARCH", "KAIROS_FLAVOR", "KAIROS_FLAVOR_RELEASE", "KAIROS_FAMILY", "KAIROS_MODEL"),
    *("KAIROS_VARIANT", "KAIROS_BUG_REPORT_URL", "KAIROS_HOME_URL"),
)
PROGRAMS = ("immucore", "kairos-agent", "kcrypt-discovery-challenger", "sudo", "less", "mount.nfs")
KAIROS_INITRD = ("immucore", "kairos-agent")
LIVE_INITRD = ("dmsquash-live-root",)
UNITS = ("getty.target", "systemd-udevd.service", "systemd-logind.service")

# Prints facts, a line each: name, tab, value. Runs in the image itself, which may have no more than a POSIX shell.
FACTS = f"""
fact() {{ printf '%s\\t%s\\n' "$1" "$2"; }}
for folder in /lib/modules/*/; do [ -d "$folder" ] && fact kernel "$(basename "$folder")"; done
for link in /boot/vmlinuz /boot/initrd; do
    target=$(readlink -f "$link" 2>/dev/null) && [ -f "$target" ] && fact resolves "$link"
done
[ -f /boot/initrd ] && fact initrd "$(sha256sum /boot/initrd | cut -d' ' -f1)"
if [ -f /etc/kairos-release ]; then
    while IFS= read -r line; do fact release "$line"; done < /etc/kairos-release
fi
for program in {" ".join(PROGRAMS)}; do
    elsewhere=$(find /system/providers /system/discovery -name "$program" 2>/dev/null)
    if command -v "$program" >/dev/null || [ -n "$elsewhere" ]; then fact program "$program"; fi
done
for key in /etc/ssh/ssh_host_*_key; do [ -e "$key" ] && fact host-key "$key"; done
[ -s /etc/machine-id ] && fact machine-id "$(head -c 32 /etc/machine-id)"
{{ [ -e /var/lock ] || [ -L /var/lock ]; }} && fact exists /var/lock
[ -f /etc/cos/bootargs.cfg ] && fact bootargs "$(stat -c %a /etc/cos/bootargs.cfg)"
for unit in {" ".join(UNITS)}; do
    [ "$(readlink -f "/etc/systemd/system/$unit")" = /dev/null ] && fact masked "$unit"
done
"""
# Prints the paths inside the initrd. Some distributions' lsinitrd does not follow links.
INITRD = """lsinitrd "$(readlink -f /boot/initrd)" | awk '{print $NF}'"""


@dataclass(frozen=True)
class Facts:
    """What FACTS printed, read."""

    kernels: tuple[str, ...] = ()
    resolves: frozenset[str] = frozenset()
    initrd_sha256: str = ""
    release: dict[str, str] = field(default_factory=dict)
    programs: frozenset[str] = frozenset()
    host_keys: tuple[str, ...] = ()
    machine_id: str = ""
    has_var_lock: bool = False
    boot_arguments_mode: str = ""
    masked: frozenset[str] = frozenset()


def parse_facts(text: str) -> Facts:
    """Facts from the lines that FACTS prints; other lines are ignored."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, tab, value = line.partition("\t")
        if tab:
            found.setdefault(name, []).append(value)
    release = {}
    for line in found.get("release", []):
        key, equals, value = line.partition("=")
        if equals:
            release[key.strip()] = value.strip().strip("\"'")
    return Facts(
        kernels=tuple(found.get("kernel", ())),
        resolves=frozenset(found.get("resolves", ())),
        initrd_sha256=next(iter(found.get("initrd", ())), ""),
        release=release,
        programs=frozenset(found.get("program", ())),
        host_keys=tuple(found.get("host-key", ())),
        machine_id=next(iter(found.get("machine-id", ())), ""),
        has_var_lock="/var/lock" in found.get("exists", ()),
        boot_arguments_mode=next(iter(found.get("bootargs", ())), ""),
        masked=frozenset(found.get("masked", ())),
    )


def image_problems(facts: Facts, *, kairos: bool, family: str) -> list[str]:
    """Everything that would keep a host from starting. `kairos`: the base is a Kairos image, not a plain Debian."""
    return [*_system_problems(facts, family), *(_kairos_problems(facts) if kairos else ())]


def _system_problems(facts: Facts, family: str) -> Iterator[str]:
    if len(facts.kernels) != 1:
        yield f"/lib/modules: one kernel must be there, and there are {', '.join(facts.kernels) or 'none'}"
    for link in ("/boot/vmlinuz", "/boot/initrd"):
        if link not in facts.resolves:
            yield f"{link}: is missing, or leads nowhere"
    for key in facts.host_keys:
        yield f"{key}: a host key that every host would share"
    if facts.machine_id:
        yield "/etc/machine-id: every host would have the same"
    if not facts.has_var_lock:
        yield "/var/lock: is missing"
    masked = UNITS if family == "dnf" else UNITS[:1]
    yield from (f"{unit}: is masked" for unit in masked if unit in facts.masked)


def _kairos_problems(facts: Facts) -> Iterator[str]:
    for key in RELEASE_KEYS:
        if not facts.release.get(key):
            yield f"/etc/kairos-release: {key} is {'empty' if key in facts.release else 'missing'}"
    for program in PROGRAMS:
        if program not in facts.programs:
            yield f"{program}: is missing"
    if facts.boot_arguments_mode != "644":
        mode = facts.boot_arguments_mode
        yield f"/etc/cos/bootargs.cfg: {f'has mode {mode}, and grub needs 644' if mode else 'is missing'}"


def initrd_problems(paths: Iterable[str], *, kairos: bool) -> list[str]:
    """What the initrd lacks; `paths` are those inside it."""
    names = {path.rpartition("/")[2] for path in paths}
    return [f"/boot/initrd: lacks {name}" for name in (KAIROS_INITRD if kairos else LIVE_INITRD) if name not in names]
