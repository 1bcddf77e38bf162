"""The agent's own source in one line of text, and the few lines that turn it back into modules.

Nothing is uploaded and nothing is written: the text travels in a job's entry point and in the
arguments of actors, and the modules exist in memory only, as package ``castray_agent``.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import sys
import tokenize
import zlib

PACKAGE = "castray_agent"
_BEFORE_STATEMENT = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)

# Runs on the nodes before anything else does; ``bundle`` is defined by whoever runs it.
LOADER = """
import base64, importlib.abc, importlib.util, json, sys, zlib
sources = json.loads(zlib.decompress(base64.b64decode(bundle)))
class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name not in sources:
            return None
        is_package = name == "castray_agent"
        return importlib.util.spec_from_loader(name, self, is_package=is_package)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        if module.__name__ == "castray_agent":
            module.BUNDLE = bundle
        code = compile(sources[module.__name__], "<" + module.__name__ + ">", "exec")
        exec(code, module.__dict__)
sys.meta_path.insert(0, Finder())
"""


@functools.lru_cache(maxsize=None)
def pack() -> str:
    """The sources of this package; of the shipped one where this is already it."""
    shipped = getattr(sys.modules.get(PACKAGE), "BUNDLE", None)
    if shipped is not None:
        return str(shipped)
    folder = os.path.dirname(os.path.abspath(__file__))
    sources = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".py"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                module = PACKAGE if name == "__init__.py" else PACKAGE + "." + name[:-3]
                sources[module] = without_words(file.read())
    return base64.b64encode(zlib.compress(json.dumps(sources).encode(), 9)).decode()


def without_words(source: str) -> str:
    """A module without comments and docstrings, every line where it was: an entry point is one
    argument of a command, which Linux limits to 128 KiB, and those are half of the text."""
    lines = source.splitlines(True)
    before = tokenize.NEWLINE
    removals = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            removals.append((token.start, token.end, ""))
            continue
        if token.type == tokenize.STRING and before in _BEFORE_STATEMENT:
            removals.append((token.start, token.end, '""' + "\n" * (token.end[0] - token.start[0])))
        if token.type != tokenize.NL:
            before = token.type
    for (row, column), (end_row, end_column), instead in reversed(removals):
        rest = lines[end_row - 1][end_column:]
        lines[row - 1 : end_row] = (lines[row - 1][:column] + instead + rest).splitlines(True)
    return "".join(lines)


def program(statement: str) -> str:
    """A program for ``python -c`` that unpacks the agent and runs a statement."""
    return 'bundle = "{}"{}{}\n'.format(pack(), LOADER, statement)
