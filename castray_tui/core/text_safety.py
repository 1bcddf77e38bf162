"""Makes text from a cluster safe to keep: bounded, without control or direction characters."""

from __future__ import annotations

import unicodedata

MAX_TEXT_CHARACTERS = 2_000
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Cc: control (escape sequences start here), Cf: format (bidirectional overrides, zero-width),
# Cs: lone surrogates, Zl and Zp: line and paragraph separators.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def safe_text(
    value: object, *, limit: int = MAX_TEXT_CHARACTERS, keep_newlines: bool = False
) -> str:
    """Text that can be stored, compared and drawn without doing anything.

    Args:
        value: Anything; what is no string is turned into one first.
        limit: The most characters kept; longer text ends in an ellipsis.
        keep_newlines: Whether line feeds and tabs stay, for logs and messages of many lines.

    Returns:
        The text with every control, format and separator character replaced by U+FFFD (a line
        feed, carriage return or tab by a space), and cut to ``limit`` characters.
    """
    text = value if isinstance(value, str) else str(value)
    if len(text) > limit:
        text = text[: max(limit - 1, 0)] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_safe_character(character, keep_newlines) for character in text)


def _safe_character(character: str, keep_newlines: bool) -> str:
    if character in "\n\r\t":
        return character if keep_newlines and character != "\r" else " "
    return _REPLACEMENT if unicodedata.category(character) in _UNSAFE_CATEGORIES else character
