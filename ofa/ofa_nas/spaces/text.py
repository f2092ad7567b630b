"""Read values from JSON, or from what Python prints for them."""

import ast
import warnings
from typing import Any

from ofa_tables.reading import parse_json

MOST_CHARACTERS = 1 << 18  # of Python text; ast needs about 100 times as much memory
MOST_NESTED = 100
_PRINTED = frozenset({"array", "bool_", "float32", "float64", "int8", "int16", "int32", "int64", "uint8"})
_NAMES = {"true": True, "false": False, "null": None}


def parse(text: str) -> Any:
    """Return dicts, lists and plain values. Tuples become lists. Raises ValueError for text of neither language."""
    try:
        return parse_json(text)
    except ValueError as error:
        if len(text) > MOST_CHARACTERS or _nesting(text) > MOST_NESTED:
            raise
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Python, about the style of the text
                parsed = ast.parse(text.strip(), mode="eval")
            return _plain(ast.literal_eval(_Constants().visit(parsed)))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise error from None


class _Constants(ast.NodeTransformer):
    """JSON's names for constants, and numbers and arrays as numpy prints them (``np.int64(7)``). Nothing is called."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Constant(_NAMES[node.id]), node) if node.id in _NAMES else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
        return node.args[0] if name in _PRINTED and len(node.args) == 1 else node


def _nesting(text: str) -> int:
    deepest = depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value
