"""The documented keys of user-data, as data, and the check against them.

Sources: Palette's installer reference (stylus), kairos-sdk's schema (install), yip's schema (stages), and
cloud-init's modules for the other root keys. A schema is a type, Any, a dict of keys, [schema] for a list,
{"*": schema} for a mapping with free names, or a function that returns what was expected instead.
"""

import difflib
import re
from collections.abc import Callable
from typing import Any

Schema = Any


def one_of(*values: str) -> Callable[[Any], str]:
    return lambda value: "" if value in values else f"one of {', '.join(values)}"


def pattern(expression: str, expected: str) -> Callable[[Any], str]:
    return lambda value: "" if isinstance(value, str) and re.fullmatch(expression, value, re.S) else expected


def text_or_number(value: Any) -> str:
    return "" if isinstance(value, (str, int)) and not isinstance(value, bool) else "text or a number"


MAP = {"*": Any}
TEXTS = {"*": str}
DEVICE = pattern(r"auto|/dev/.+|script://.+", "auto, /dev/… or script://…")
SITE_NAME = pattern(
    r"\$random|[^/?#&+%,$~!@*(){}|=;:<>'.^\"]{0,128}", "a name of at most 128 letters, digits, - and _"
)
SIZED = {"size": int, "fs": str}
USER_FIELDS = {
    "name": str, "passwd": text_or_number, "groups": Any, "ssh_authorized_keys": [str], "lock_passwd": bool,
    "passwordExpiry": text_or_number, "shell": str, "sudo": Any, "gecos": str, "homedir": str, "uid": text_or_number,
    "primary_group": str, "no_create_home": bool, "no_user_group": bool, "system": bool, "no_log_init": bool,
    "hashed_passwd": str, "plain_text_passwd": str, "ssh_import_id": [str], "expiredate": text_or_number,
}  # fmt: skip
REGISTRY = {"domain": str, "username": str, "password": str, "insecure": bool, "encodedPassword": bool}

STYLUS = {
    "debug": bool, "trace": bool, "managementMode": one_of("central", "local"),
    "installationMode": one_of("connected", "airgap"), "featureGate": str, "path": str, "enableMultiNode": bool,
    "disablePasswordUpdate": bool, "disableTui": bool, "includeTui": bool, "imageOverride": str,
    "vip": {"skip": bool}, "emcServer": {"port": int},
    "localUI": {"port": int, "login": {
        "disableRateLimiting": bool, "attemptsBeforeExponentialDelayStarts": int,
        "maxFailedAttemptsBeforeLockout": int, "lockoutDurationInMinutes": int}},
    "imageRedirectWebhook": {"enable": bool, "port": int},
    "registryCredentials": REGISTRY,
    "externalRegistries": {
        "registries": [{**REGISTRY, "repositoryName": str, "certificates": [str]}], "registryMappingRules": TEXTS},
    "site": {
        "paletteEndpoint": pattern(r"(?!https?://)\S*", "a host without scheme, such as api.spectrocloud.com"),
        "edgeHostToken": str, "projectUid": str, "projectName": str, "name": SITE_NAME, "hostName": str,
        "prefix": pattern(r"[A-Za-z0-9-]*", "letters, digits and -"),
        "deviceUIDPaths": [{"name": str, "regex": str}], "tags": MAP,
        "tagsFromFile": {"fileName": str, "delimiter": str, "separator": str},
        "tagsFromScript": {"scriptName": str, "timeout": int}, "registrationURL": str, "insecureSkipVerify": bool,
        "caCerts": [str], "clusterId": str, "clusterName": str, "ntpServers": Any, "remoteShell": {"disable": bool},
        "users": [USER_FIELDS],
        "network": {
            "httpProxy": str, "httpsProxy": str, "noProxy": str, "nameserver": str,
            "interfaces": {"*": {"type": one_of("dhcp", "static"), "ipAddress": str, "mask": str, "gateway": str,
                                 "nameserver": str}}}},
}  # fmt: skip

INSTALL = {
    "device": DEVICE, "auto": bool, "force": bool, "no-format": bool, "reboot": bool, "poweroff": bool,
    "bind_mounts": [str], "ephemeral_mounts": [str], "extra-dirs-rootfs": [str], "encrypted_partitions": [str],
    "grub_options": TEXTS, "partitions": {"oem": SIZED, "recovery": SIZED, "state": SIZED, "persistent": SIZED},
    "extra-partitions": [{**SIZED, "name": str, "label": str}],
    "system": {"size": int, "uri": str}, "passive": {"size": int, "uri": str},
    "recovery-system": {"size": int, "uri": str},
    "image": str, "bundles": Any, "env": [str], "firmware": one_of("efi", "bios"),
    "part-table": one_of("gpt", "msdos"), "grub-entry-name": str,
}  # fmt: skip

STEP = {
    "name": str, "commands": [str], "if": str, "node": str,
    "files": [{"path": str, "permissions": text_or_number, "owner": text_or_number, "group": text_or_number,
               "content": str, "encoding": str, "ownerstring": str}],
    "downloads": [{"path": str, "url": str, "permissions": text_or_number, "owner": text_or_number,
                   "group": text_or_number, "timeout": int, "owner_string": str}],
    "directories": [{"path": str, "permissions": text_or_number, "owner": text_or_number, "group": text_or_number}],
    "dns": {"nameservers": [str], "search": [str], "options": [str], "path": str}, "hostname": str, "sysctl": MAP,
    "authorized_keys": {"*": [str]}, "users": {"*": USER_FIELDS}, "modules": [str],
    "systemctl": {"enable": [str], "disable": [str], "start": [str], "mask": [str], "overrides": Any},
    "environment": MAP, "environment_file": str, "ensure_entities": [{"path": str, "entity": str}],
    "delete_entities": [{"path": str, "entity": str}], "datasource": {"providers": [str], "path": str}, "layout": Any,
    "systemd_firstboot": MAP, "timesyncd": MAP, "git": Any, "packages": Any,
    "unpack_images": [{"source": str, "target": str, "platform": str}], "only_os": str, "only_os_version": str,
    "only_arch": str, "only_service_manager": str, "after": [{"name": str}],
}  # fmt: skip

_FREE_ROOT_KEYS = """
    name debug strict cloud-init-paths config_url env reset upgrade k3s growpart runcmd hostname write_files bundles
    grub_options eject-cd extra-partitions bootcmd packages package_update package_upgrade ssh_authorized_keys
    ssh_pwauth disable_root timezone locale ntp chpasswd password user groups network manage_etc_hosts fqdn
    preserve_hostname mounts swap disk_setup fs_setup final_message power_state ca_certs apt zypper keyboard merge_how
    output
"""
ROOT_KEYS: dict[str, Schema] = {
    "stylus": STYLUS,
    "install": INSTALL,
    "stages": {"*": [STEP]},
    "users": [USER_FIELDS],
    **dict.fromkeys(_FREE_ROOT_KEYS.split(), Any),
}


def check(value: Any, schema: Schema, path: str) -> list[str]:
    """What is wrong with a value, each with its dotted path; never the value itself."""
    if schema is Any:
        return []
    if isinstance(schema, dict):
        return _check_mapping(value, schema, path)
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{path}: expected a list, got {_kind(value)}"]
        return [
            problem for number, item in enumerate(value) for problem in check(item, schema[0], f"{path}[{number}]")
        ]
    if isinstance(schema, type):
        fits = isinstance(value, schema) and not (schema is int and isinstance(value, bool))
        return [] if fits else [f"{path}: expected {_name(schema)}, got {_kind(value)}"]
    expected = schema(value)
    return [f"{path}: expected {expected}"] if expected else []


def _check_mapping(value: Any, schema: dict[str, Schema], path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: expected a mapping, got {_kind(value)}"]
    problems = []
    for name, item in value.items():
        where = f"{path}.{name}" if path else str(name)
        if "*" in schema:
            problems += check(item, schema["*"], where)
        elif name in schema:
            problems += check(item, schema[name], where)
        else:
            close = difflib.get_close_matches(str(name), schema, n=1)
            problems.append(f"{where}: no such key" + (f"; did you mean {close[0]}?" if close else ""))
    return problems


def _name(kind: type) -> str:
    names: dict[Any, str] = {str: "a string", int: "a whole number", bool: "true or false"}
    return names.get(kind, kind.__name__)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    shapes: dict[Any, str] = {dict: "a mapping", list: "a list"}
    return shapes.get(type(value)) or _name(type(value))
