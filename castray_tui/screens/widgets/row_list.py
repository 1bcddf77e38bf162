"""The rows of a table in the order they are shown. No drawing here.

A row keeps its place while its data changes: the order is worked out when the user sorts or
filters, and a row that joins goes in where it belongs then. Sorting again is the user's decision.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable, Mapping
from functools import total_ordering
from typing import Any, Generic, TypeAlias, TypeVar

RowT = TypeVar("RowT")
KeyT = TypeVar("KeyT", bound=Hashable)
Order: TypeAlias = tuple[Any, ...]
"""A tuple that can be compared with its like; tuples in it keep parts of different length apart."""
SortValue: TypeAlias = "Order | None"


@total_ordering
class _Descending:
    """A value that sorts the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Order) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and self.value == other.value

    def __lt__(self, other: _Descending) -> bool:
        return other.value < self.value

    __hash__ = None  # type: ignore[assignment]  # never a key


_Place: TypeAlias = "tuple[bool, Order | _Descending, Order]"


class RowList(Generic[KeyT, RowT]):
    """Rows by key, filtered and in order.

    Args:
        natural: The value of a row in the order that holds while nothing else is asked for; it
            also orders rows that are equal otherwise.
    """

    def __init__(self, natural: Callable[[RowT], Order]) -> None:
        self._natural = natural
        self._value: Callable[[RowT], SortValue] | None = None
        self._descending = False
        self._passes: Callable[[RowT], bool] | None = None
        self.rows: Mapping[KeyT, RowT] = {}
        self.shown: list[KeyT] = []
        self._is_shown: set[KeyT] = set()

    def __len__(self) -> int:
        return len(self.shown)

    def index(self, key: KeyT | None, near: int = 0) -> int | None:
        """Where a key is shown, looked for at ``near`` first; None where it is not."""
        if key is None or key not in self._is_shown:
            return None
        if 0 <= near < len(self.shown) and self.shown[near] == key:
            return near
        return self.shown.index(key)

    def is_shown(self, key: KeyT) -> bool:
        """Whether the row exists and passes the filter."""
        return key in self._is_shown

    def update(self, rows: Mapping[KeyT, RowT]) -> bool:
        """Takes over new data; rows that stay keep their places.

        Returns:
            Whether rows came, went, or began or ceased to pass the filter.
        """
        before, self.rows = self.rows, rows
        gone = {key for key in self._is_shown if key not in rows}
        came: list[KeyT] = []
        for key, row in rows.items():
            if before.get(key) is row:
                continue
            shown = key in self._is_shown
            passes = self._passes is None or self._passes(row)
            if passes and not shown:
                came.append(key)
            elif shown and not passes:
                gone.add(key)
        if gone:
            self.shown = [key for key in self.shown if key not in gone]
            self._is_shown -= gone
        if came:
            self._insert(came)
        return bool(gone or came)

    def filter(self, passes: Callable[[RowT], bool] | None) -> None:
        """Shows the rows that pass, in order; None shows all."""
        self._passes = passes
        self.sort_again()

    def sort(self, value: Callable[[RowT], SortValue] | None, *, descending: bool = False) -> None:
        """Puts rows in the order of a value, unknown ones last; None is the natural order."""
        self._value = value
        self._descending = descending
        self.sort_again()

    def sort_again(self) -> None:
        """Works the order out anew from the data as it is now."""
        passes = self._passes
        keys = [key for key, row in self.rows.items() if passes is None or passes(row)]
        keys.sort(key=self._place)
        self.shown = keys
        self._is_shown = set(keys)

    def _place(self, key: KeyT) -> _Place:
        row = self.rows[key]
        natural = self._natural(row)
        if self._value is None:
            return (False, _Descending(natural) if self._descending else natural, ())
        value = self._value(row)
        if value is None:
            return (True, (), natural)
        return (False, _Descending(value) if self._descending else value, natural)

    def _insert(self, came: list[KeyT]) -> None:
        came.sort(key=self._place)
        merged: list[KeyT] = []
        start = 0
        for key in came:
            at = bisect_right(self.shown, self._place(key), lo=start, key=self._place)
            merged += self.shown[start:at]
            merged.append(key)
            start = at
        merged += self.shown[start:]
        self.shown = merged
        self._is_shown.update(came)
