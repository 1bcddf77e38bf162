"""Reads the settings: command line before environment before file before default.

Whatever is wrong is a ConfigError that names the place, the key and what would be right. This runs
before anything else that castray does, so parsers are imported only where there is something to
parse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from castray_tui.core import config
from castray_tui.core.config_files import config_file, home_folder, parsed_file, unique_keys
from castray_tui.core.config_keys import (
    CLUSTER_KEYS,
    CLUSTERS_VARIABLE,
    KEYS,
    OTHER_VARIABLES,
    TABLES,
    TEST_VARIABLES,
    ConfigKey,
)
from castray_tui.core.config_values import Folders, shown
from castray_tui.core.errors import ConfigError
from castray_tui.core.state_folder import state_dir

if TYPE_CHECKING:
    from castray_tui.core.config_positions import KeyPath

__all__ = ["LoadedSettings", "effective_settings", "load_settings", "state_dir"]

COMMAND_LINE = "command line"
DEFAULT = "default"
CLUSTERS = "clusters"

_KEYS = {key.name: key for key in KEYS}
_CLUSTER_KEYS = {key.name: key for key in CLUSTER_KEYS}
_TABLE_TYPES: Mapping[str, type[Any]] = {
    "ray_cluster": config.RayClusterSettings,
    "external_cluster": config.ExternalClusterSettings,
    "web_server": config.WebServerSettings,
    "transfer": config.TransferSettings,
    "ui": config.UiSettings,
}
# What Kubernetes sets in every pod of a namespace that has a service named castray or castray-….
_KUBERNETES_VARIABLE = re.compile(
    r"CASTRAY_(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_.+)?)"
)


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings and where each came from.

    Attributes:
        origins: By dotted key, ``clusters`` included: ``default``, ``castray.toml:12``,
            ``environment CASTRAY_UI_THEME`` or ``command line``.
        file: The file that was read, None where there is none.
    """

    settings: config.Settings
    origins: Mapping[str, str]
    file: Path | None


def load_settings(
    *,
    config_path: Path | None,
    overrides: Mapping[str, object],
    environ: Mapping[str, str],
    working_dir: Path,
) -> LoadedSettings:
    """The effective settings of a run.

    Args:
        config_path: What ``--config`` said; None looks for a file as the documentation tells.
        overrides: What the command line said, by dotted key; None is what it did not say. Text is
            read as from an environment variable.
        environ: The environment.
        working_dir: Where ``./castray.toml`` and relative paths are.

    Raises:
        ConfigError: A file cannot be read, or some key or value is wrong.
    """
    folders = Folders(base=working_dir, home=home_folder(environ))
    found = _Found()
    path = config_file(config_path, environ, working_dir, folders.home)
    if path is not None:
        _read_file(found, path, working_dir, folders.home)
    _read_environment(found, environ, folders)
    _read_overrides(found, overrides, folders)
    return LoadedSettings(found.settings(), found.origins, path)


def effective_settings(loaded: LoadedSettings) -> list[tuple[str, object, str]]:
    """Every key with its value, as a file would hold it, and where that came from."""
    rows = [
        (key.name, key.kind.write(key.value_in(loaded.settings)), loaded.origins[key.name])
        for key in KEYS
    ]
    clusters = [
        {
            key.name: key.kind.write(value)
            for key in CLUSTER_KEYS
            if (value := getattr(cluster, key.name)) is not None
        }
        for cluster in loaded.settings.clusters
    ]
    return [*rows, (CLUSTERS, clusters, loaded.origins[CLUSTERS])]


class _Found:
    """What was found so far; what comes later wins."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.clusters: tuple[config.KnownClusterSettings, ...] = ()
        self.origins = {key.name: DEFAULT for key in KEYS} | {CLUSTERS: DEFAULT}

    def put(self, key: ConfigKey, value: object, where: str, folders: Folders) -> None:
        self.values[key.attribute or key.name] = _accepted(key, key.name, value, where, folders)
        self.origins[key.name] = where

    def put_clusters(self, clusters: tuple[config.KnownClusterSettings, ...], where: str) -> None:
        self.clusters = clusters
        self.origins[CLUSTERS] = where

    def settings(self) -> config.Settings:
        tables: dict[str, dict[str, Any]] = {table: {} for table in ("", *_TABLE_TYPES)}
        for attribute, value in self.values.items():
            table, _, name = attribute.rpartition(".")
            tables[table][name] = value
        for table, kind in _TABLE_TYPES.items():
            tables[""][table] = kind(**tables[table])
        return config.Settings(clusters=self.clusters, **tables[""])


def _accepted(key: ConfigKey, name: str, value: object, where: str, folders: Folders) -> object:
    try:
        return key.kind.read(value, folders)
    except ValueError as problem:
        raise ConfigError(
            f"{where}: {name} is {shown(value)}, {problem}",
            remedy=f"{name} takes {key.kind.accepts}",
        ) from None


# --- files ------------------------------------------------------------------------------------


def _read_file(found: _Found, path: Path, working_dir: Path, home: Path) -> None:
    document, lines = parsed_file(path, working_dir)
    base = (working_dir / path).parent.absolute()
    source = _Source(str(path), lines, Folders(base=base, home=home))
    for name, value in document.items():
        if name == CLUSTERS:
            found.put_clusters(_clusters(value, source), source.where((CLUSTERS,)))
        elif name in TABLES:
            _read_table(found, name, value, source)
        elif name in _KEYS:
            found.put(_KEYS[name], value, source.where((name,)), source.folders)
        else:
            raise _unknown_top(name, value, source.where((name,)))


@dataclass(frozen=True, slots=True)
class _Source:
    """Where values stand: a file with the lines of its keys, or anything else without."""

    name: str
    lines: Mapping[KeyPath, int]
    folders: Folders

    def where(self, path: KeyPath) -> str:
        line = self.lines.get(path)
        return self.name if line is None else f"{self.name}:{line}"


def _read_table(found: _Found, table: str, value: object, source: _Source) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{source.where((table,))}: {table} is {shown(value)}, which is no table",
            remedy=f"Write [{table}] and its keys on lines of their own below it",
        )
    for leaf, item in value.items():
        where = source.where((table, leaf))
        key = _KEYS.get(f"{table}.{leaf}")
        if key is None:
            raise _unknown_key(f"{table}.{leaf}", table, where)
        found.put(key, item, where, source.folders)


# --- clusters ---------------------------------------------------------------------------------


def _clusters(value: object, source: _Source) -> tuple[config.KnownClusterSettings, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(
            f"{source.where((CLUSTERS,))}: clusters is no list of clusters",
            remedy='Write [[clusters]], and below it name = "…" and address = "…"',
        )
    clusters: list[config.KnownClusterSettings] = []
    names: dict[str, str] = {}
    for number, entry in enumerate(value):
        where = source.where((CLUSTERS, number))
        cluster = (
            entry
            if isinstance(entry, config.KnownClusterSettings)
            else _cluster(entry, number, source)
        )
        if cluster.name in names:
            raise ConfigError(
                f'{where}: another cluster is named "{cluster.name}" too, at {names[cluster.name]}',
                remedy="Give each cluster a name of its own",
            )
        names[cluster.name] = where
        clusters.append(cluster)
    return tuple(clusters)


def _cluster(entry: object, number: int, source: _Source) -> config.KnownClusterSettings:
    where = source.where((CLUSTERS, number))
    if not isinstance(entry, Mapping):
        raise ConfigError(
            f"{where}: clusters[{number}] is {shown(entry)}, which is no cluster",
            remedy='Write [[clusters]], and below it name = "…" and address = "…"',
        )
    values: dict[str, Any] = {}
    for leaf, item in entry.items():
        key = _CLUSTER_KEYS.get(str(leaf))
        leaf_where = source.where((CLUSTERS, number, leaf))
        if key is None:
            near = _nearest(str(leaf), _CLUSTER_KEYS)
            raise ConfigError(
                f"{leaf_where}: unknown key {shown(f'clusters.{leaf}')}",
                remedy=_did_you_mean(f"clusters.{near}" if near else None)
                + "A [[clusters]] entry takes "
                + ", ".join(_CLUSTER_KEYS),
            )
        values[key.name] = _accepted(key, f"clusters.{key.name}", item, leaf_where, source.folders)
    for name, example in (("name", 'name = "ml"'), ("address", 'address = "10.0.0.5:8265"')):
        if name not in values:
            raise ConfigError(
                f"{where}: this [[clusters]] entry has no {name}",
                remedy=f"Add {example}",
            )
    return config.KnownClusterSettings(**values)


# --- environment and command line -------------------------------------------------------------


def _read_environment(found: _Found, environ: Mapping[str, str], folders: Folders) -> None:
    _refuse_unknown_variables(environ)
    for key in KEYS:
        for name in (key.variable, *key.other_variables):
            text = environ.get(name, "").strip()
            if not text or (name == "RAY_ADDRESS" and text == "local"):
                continue  # Ray takes "local" for a cluster of its own: that names none
            found.put(key, key.kind.from_text(text), f"environment {name}", folders)
            break
    if environ.get("NO_COLOR") and not environ.get(_KEYS["ui.color"].variable):
        found.put(_KEYS["ui.color"], False, "environment NO_COLOR", folders)
    text = environ.get(CLUSTERS_VARIABLE, "").strip()
    if text:
        import json  # noqa: PLC0415

        where = f"environment {CLUSTERS_VARIABLE}"
        try:
            entries = json.loads(text, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"{where}: this is no JSON: {error}",
                remedy='Write a list such as [{"name": "ml", "address": "10.0.0.5:8265"}]',
            ) from None
        found.put_clusters(_clusters(entries, _Source(where, {}, folders)), where)


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {key.variable for key in KEYS} | {CLUSTERS_VARIABLE, *OTHER_VARIABLES}
    for name in environ:
        if not name.startswith("CASTRAY_") or name in known:
            continue
        if name.startswith(TEST_VARIABLES):
            continue
        if _KUBERNETES_VARIABLE.fullmatch(name) or environ[name].startswith(("tcp://", "udp://")):
            continue
        raise ConfigError(
            f"environment {shown(name)[1:-1]}: no setting is named so",
            remedy=_did_you_mean(_nearest(name, known))
            + "Variables of settings are CASTRAY_<TABLE>_<KEY>; unset this one",
        )


def _read_overrides(found: _Found, overrides: Mapping[str, object], folders: Folders) -> None:
    for name, value in overrides.items():
        if value is None:
            continue
        if name == CLUSTERS:
            source = _Source(COMMAND_LINE, {}, folders)
            found.put_clusters(_clusters(value, source), COMMAND_LINE)
            continue
        key = _KEYS.get(name)
        if key is None:
            raise _unknown_key(name, name.rpartition(".")[0], COMMAND_LINE)
        plain = key.kind.from_text(value) if isinstance(value, str) else value
        found.put(key, plain, COMMAND_LINE, folders)


# --- what was meant ---------------------------------------------------------------------------


def _unknown_top(name: str, value: object, where: str) -> ConfigError:
    is_table_list = isinstance(value, list) and all(isinstance(item, Mapping) for item in value)
    if isinstance(value, Mapping) or is_table_list:
        near = _nearest(name, [*TABLES, CLUSTERS])
        tables = ", ".join(f"[{table}]" for table in TABLES)
        return ConfigError(
            f"{where}: unknown table {shown(name)}",
            remedy=_did_you_mean(near and (f"[[{near}]]" if near == CLUSTERS else f"[{near}]"))
            + f"Tables are {tables} and [[{CLUSTERS}]]",
        )
    return _unknown_key(name, "", where)


def _unknown_key(name: str, table: str, where: str) -> ConfigError:
    leaves = [key.leaf for key in KEYS if key.table == table]
    place = f"[{table}]" if table else "The top of the file"
    takes = f"{place} takes " + ", ".join(leaves) if leaves else ""
    return ConfigError(
        f"{where}: unknown key {shown(name)}", remedy=_did_you_mean(_nearest_key(name)) + takes
    )


def _nearest_key(name: str) -> str | None:
    """The key most like it: in its own table, else one whose last part is like its last part."""
    table, _, leaf = name.rpartition(".")
    near = _nearest(leaf, [key.leaf for key in KEYS if key.table == table])
    if near is not None:
        return f"{table}.{near}" if table else near
    near = _nearest(leaf, [key.leaf for key in KEYS])
    if near is not None:
        return next(key.name for key in KEYS if key.leaf == near)
    return _nearest(name, _KEYS)


def _nearest(name: str, names: Iterable[str]) -> str | None:
    from difflib import get_close_matches  # noqa: PLC0415  costs start-up time

    matches = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _did_you_mean(name: str | None) -> str:
    return f'Did you mean "{name}"? ' if name else ""
