"""Finds and parses the configuration file; what stands in it is for ``config_loading`` to judge."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from castray_tui.core.config_values import shown
from castray_tui.core.errors import ConfigError

if TYPE_CHECKING:
    from castray_tui.core.config_positions import KeyPath

MAX_FILE_BYTES = 1024 * 1024


def home_folder(environ: Mapping[str, str]) -> Path:
    """What ``~`` means."""
    home = environ.get("HOME") or environ.get("USERPROFILE")
    if home:
        return Path(home)
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.sep)


def config_file(
    config_path: Path | None, environ: Mapping[str, str], working_dir: Path, home: Path
) -> Path | None:
    """The file that was named, else the first of the usual ones that exists."""
    if config_path is not None:
        return config_path
    named = environ.get("CASTRAY_CONFIG")
    if named:
        path = Path(named)
        return home.joinpath(*path.parts[1:]) if path.parts[:1] == ("~",) else path
    beside = working_dir / "castray.toml"
    if beside.is_file():
        _refuse_strangers_file(beside, working_dir)
        return Path("castray.toml")
    folder = Path(environ.get("XDG_CONFIG_HOME") or "")
    if not folder.is_absolute():  # the XDG specification has relative ones ignored
        folder = home / ".config"
    personal = folder / "castray" / "castray.toml"
    return personal if personal.is_file() else None


def _refuse_strangers_file(path: Path, folder: Path) -> None:
    """A file that anybody may have put into /tmp must not choose where this user's tokens go."""
    if os.name != "posix":
        return
    if folder.stat().st_mode & 0o002 and path.stat().st_uid not in (0, os.getuid()):
        raise ConfigError(
            f"{path} belongs to another user, in a folder that everybody may write to",
            remedy="Start castray elsewhere, or name the file with --config if you trust it",
        )


def parsed_file(path: Path, working_dir: Path) -> tuple[dict[str, object], dict[KeyPath, int]]:
    """What stands in a file, JSON if it is named so, else TOML, and on which lines.

    Raises:
        ConfigError: It cannot be read, or is neither.
    """
    from castray_tui.core.config_positions import json_lines, toml_lines  # noqa: PLC0415  only with a file

    text = _file_text(working_dir / path, str(path))
    if path.suffix.lower() == ".json":
        return _parsed_json(text, str(path)), json_lines(text)
    return _parsed_toml(text, str(path)), toml_lines(text)


def _file_text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"The configuration file {name} does not exist",
            remedy="Correct --config or CASTRAY_CONFIG, or leave it out",
        ) from None
    except IsADirectoryError:
        raise ConfigError(
            f"The configuration file {name} is a folder", remedy="Name a file in it"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"The configuration file {name} cannot be read: {error.strerror or error}",
            remedy="Make it readable, or name another with --config",
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(
            f"The configuration file {name} is larger than {MAX_FILE_BYTES:,} bytes",
            remedy="Name a castray configuration with --config",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: this is not UTF-8", remedy="Save it as UTF-8") from None


def _parsed_toml(text: str, name: str) -> dict[str, object]:
    import tomli  # noqa: PLC0415  costs start-up time that only a file needs

    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        message = str(error)
        match = re.search(r" \((?:at line (\d+), column (\d+)|at end of document)\)$", message)
        line = text.count("\n") + 1
        if match is not None:
            line = int(match[1]) if match[1] else line
            message = message[: match.start()]
        raise ConfigError(
            f"{name}:{line}: this is no TOML: {message[:1].lower()}{message[1:]}",
            remedy="Correct that line; text needs quotes, true and false none",
        ) from None
    except (ValueError, RecursionError) as error:  # an impossible date; a thousand brackets
        raise ConfigError(f"{name}: this is no TOML: {error}", remedy="Correct it") from None


def _parsed_json(text: str, name: str) -> dict[str, object]:
    import json  # noqa: PLC0415

    try:
        document = json.loads(text, object_pairs_hook=unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{name}:{error.lineno}: this is no JSON: {error.msg[:1].lower()}{error.msg[1:]}",
            remedy="Correct that line; JSON has neither comments nor trailing commas",
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: {error}", remedy="Correct it") from None
    if not isinstance(document, dict):
        raise ConfigError(
            f"{name}: this is no JSON object", remedy='Write {"ui": {"ascii": true}}, for example'
        )
    return document


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object, refused with ValueError where a key stands in it twice."""
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return table


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")
