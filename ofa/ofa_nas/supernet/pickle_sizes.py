"""How many values a pickle describes, without building them.

A pickle can refer to one object many times: a list that contains one other list twice, and so on, has 2^n values after
n lines. Printing or hashing such an object does not end, and torch prints objects in its messages.
"""

import pickletools
from typing import Any

Node = list[Any]  # the objects inside of an object

_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_IN_PLACE = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
_LEAF: Node = []
_MUTABLE = frozenset({"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"})


class Objects:
    """Follows the operations of a pickle. Raises LookupError or TypeError if they do not fit together."""

    def __init__(self) -> None:
        self._stack: list[Node | None] = []  # None is a mark
        self._memo: dict[int, Node | None] = {}
        self._nodes: list[Node] = []

    def apply(self, operation: pickletools.OpcodeInfo, argument: Any) -> None:
        name = operation.name
        if name in _PUTS:
            self._memo[len(self._memo) if argument is None else int(argument)] = self._stack[-1]
        elif name in _GETS:
            self._stack.append(self._memo[int(argument)])
        elif name == "MARK":
            self._stack.append(None)
        else:
            self._take_and_put(operation)

    def _take_and_put(self, operation: pickletools.OpcodeInfo) -> None:
        before, inside = operation.stack_before, []
        if pickletools.markobject in before:
            while (top := self._stack.pop()) is not None:
                inside.append(top)
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            node = self._stack.pop()
            if node is None:
                raise TypeError("a mark in the place of an object")
            inside.append(node)
        if operation.name in _IN_PLACE:
            target = inside.pop()
            target += inside
            self._stack.append(target)
            return
        is_leaf = not inside and operation.name not in _MUTABLE
        for _ in operation.stack_after:
            node = _LEAF if is_leaf else inside
            self._stack.append(node)
            if not is_leaf:
                self._nodes.append(node)

    def largest(self, most: int) -> int:
        """Return the number of values in the largest object, every place counted; at most ``most`` + 1."""
        sizes: dict[int, int] = {}
        done: set[int] = set()
        for root in self._nodes:
            waiting = [root]
            while waiting:
                node = waiting[-1]
                if id(node) not in sizes:
                    sizes[id(node)] = 1  # also if the object contains itself
                    waiting += [child for child in node if id(child) not in sizes]
                    continue
                waiting.pop()
                if id(node) not in done:
                    done.add(id(node))
                    sizes[id(node)] = min(most + 1, 1 + sum(sizes.get(id(child), 1) for child in node))
        return max(sizes.values(), default=0)
