"""Which entries of a tree are taken: ``exclude`` and ``include`` patterns.

A pattern without a slash is for names at any depth (``*.log``); one with a slash inside or in
front is for the whole path from the top of the tree (``a/b``, ``/b``); a slash at its end makes it
one for folders only. ``*`` and ``?`` stop at slashes, ``**`` does not (``a/**/b`` is also ``a/b``),
``[a-z]`` and ``[!a-z]`` are classes, a backslash takes the next character as it is.

What matches ``exclude`` is left out, with everything below it; what matches ``include`` is taken
nevertheless, with everything below it and the folders it lies in. ``include`` alone leaves out
everything else. Folders that were excluded come along only where something in them was taken.
"""

from __future__ import annotations

import re
from typing import Callable, List, Optional, Tuple

_Match = Callable[[str], object]


class Patterns:
    """The patterns of one transfer.

    Raises:
        ValueError: A pattern that cannot be understood; the message names it.
    """

    def __init__(self, include: List[str], exclude: List[str]) -> None:
        self.has_includes = bool(include)
        self._include = _compile(include)
        self._exclude = _compile(exclude or (["*"] if include else []))

    @property
    def is_empty(self) -> bool:
        """Whether everything is taken."""
        return self._exclude is None

    def judge(self, path: str, is_folder: bool, above: Tuple[bool, bool]) -> Tuple[bool, bool]:
        """Whether a path, or a folder above it, is excluded, and whether one is included.

        Args:
            path: From the top of the tree.
            is_folder: Whether a folder lies there.
            above: What was said of the folder it lies in; ``(False, False)`` at the top.
        """
        key = path + "/" if is_folder else path
        is_excluded, is_included = above
        if not is_excluded and self._exclude is not None:
            is_excluded = self._exclude(key) is not None
        if not is_included and self._include is not None:
            is_included = self._include(key) is not None
        return is_excluded, is_included

    def takes(self, path: str, is_folder: bool) -> bool:
        """Whether a path is taken, by itself or with a folder above it."""
        verdict = (False, False)
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            is_last = count == len(parts)
            verdict = self.judge("/".join(parts[:count]), is_folder or not is_last, verdict)
        return not verdict[0] or verdict[1]


def _compile(patterns: List[str]) -> Optional[_Match]:
    if not patterns:
        return None
    parts = []
    for pattern in patterns:
        try:
            parts.append(_translate(pattern))
            re.compile(parts[-1])
        except (re.error, ValueError) as error:
            raise ValueError("pattern {!r}: {}".format(pattern, error)) from error
    return re.compile("(?:" + "|".join(parts) + r")\Z", re.DOTALL).match


def _translate(pattern: str) -> str:
    """A pattern as a regular expression for paths, in which a folder's path ends in a slash."""
    is_for_folders = pattern.endswith("/")
    body = pattern.rstrip("/")
    if not body:
        raise ValueError("names nothing")
    is_anchored = "/" in body
    body = body.lstrip("/")
    out = [] if is_anchored else ["(?:.*/)?"]
    place = 0
    while place < len(body):
        char = body[place]
        place += 1
        if char == "*" and body.startswith("*", place):
            place += 1
            is_whole = (place == 2 or body[place - 3] == "/") and body.startswith("/", place)
            out.append("(?:.*/)?" if is_whole else ".*")
            place += is_whole
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            end = body.find("]", place + 1 + body.startswith(("!", "^"), place))
            if end < 0:
                raise ValueError("[ without ]")
            inside = body[place:end].replace("\\", "\\\\").replace("[", "\\[")
            is_negated = inside[:1] in ("!", "^")
            out.append("(?!/)[{}{}]".format("^" * is_negated, inside[is_negated:]))
            place = end + 1
        elif char == "\\" and place < len(body):
            out.append(re.escape(body[place]))
            place += 1
        else:
            out.append(re.escape(char))
    return "".join(out) + ("/" if is_for_folders else "/?")
