"""Orders that wait for their answers, over whatever way those come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from castray_tui.core.errors import TransferError
from castray_tui.core.text_safety import safe_text

Json = dict[str, Any]


class ConnectionBrokenError(TransferError):
    """Whoever owed an answer has gone in the middle, and may soon be there again."""


class Answers:
    """The answers that one side still owes.

    Args:
        who: Who owes them, as it begins a sentence.
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._last_id = 0

    async def ask(
        self, send: Callable[[Json], None], message: Json, timeout_seconds: float
    ) -> list[Any]:
        """Sends an order with a number to it; what it came to.

        Raises:
            TransferError: Refused, no answer in time, or ``fail`` was called meanwhile.
        """
        self._last_id += 1
        number = self._last_id
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            send({**message, "id": number})
            answer = await asyncio.wait_for(future, timeout_seconds)
        except asyncio.TimeoutError:
            raise TransferError(
                f"{self._who} did not answer within {timeout_seconds:.0f} s"
            ) from None
        finally:
            self._waiting.pop(number, None)
        if "refused" in answer:
            raise TransferError(safe_text(answer["refused"].get("reason"), limit=500))
        answers = answer.get("answers")
        return answers if isinstance(answers, list) else []

    def take(self, answer: Json) -> None:
        """One has come. What nobody waits for any more is dropped."""
        future = self._waiting.get(answer["id"])
        if future is not None and not future.done():
            future.set_result(answer)

    def fail(self, reason: str) -> None:
        """None will come any more: whoever waits is told why."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionBrokenError(reason))
