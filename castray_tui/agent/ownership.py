"""Owning transfers: the side that holds the source sees them through and knows how they ended.

The owner is castray's own agent process where the source is local, the cluster's coordinator where
it is a node. What differs between the two is only how an agent is reached, which is what ``Nodes``
is for.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from .refusals import OrderRefusedError

Json = Dict[str, Any]

_POLL_SECONDS = 0.02
_KEPT_RESULTS = 1000


class Nodes:
    """How an owner reaches the agents of its nodes."""

    def call(self, node_id: str, order: str, arguments: Json) -> Json:
        """One order to one node's agent, started if there is none.

        Raises:
            OrderRefusedError: The agent refused, or there is no agent to be had (code ``agent``).
        """
        raise NotImplementedError

    def listing(self) -> List[Json]:
        """All nodes there are, each with ``node_id``, ``alive``, ``address``, ``hostname`` and
        ``is_head``.

        Raises:
            OrderRefusedError: There is nothing to list.
        """
        raise OrderRefusedError("order", "there are no other nodes here")


class Desk:
    """Takes orders for any of its nodes, runs transfers, and tells how they go.

    Args:
        nodes: How agents are reached.
        on_event: Told ``{"event": "progress" | "finished", …}`` from threads of the desk.
        on_finished: Told the whole final record of a transfer, once.
    """

    def __init__(
        self,
        nodes: Nodes,
        on_event: Callable[[Json], None],
        on_finished: Callable[[Json], None],
    ) -> None:
        self._nodes = nodes
        self._on_event = on_event
        self._on_finished = on_finished
        self._lock = threading.Lock()
        self._running: Dict[str, _Run] = {}
        self._results: Dict[str, Json] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a transfer runs."""
        with self._lock:
            return bool(self._running)

    def answer(self, message: Json) -> Json:
        """Carries out one message of castray: ``calls``, ``run``, ``cancel``, ``pause``, ``known``
        or ``nodes``.

        Raises:
            OrderRefusedError: It cannot be carried out.
        """
        if "calls" in message:
            shared = message.get("shared", {})
            for call in message["calls"]:
                call["arguments"] = dict(shared, **call["arguments"])
            return {"answers": self.call_all(message["calls"])}
        if "run" in message:
            self.run(message["node_id"], message["run"], message["record"])
            return {"answers": []}
        if "cancel" in message:
            self.cancel(message["cancel"])
            return {"answers": []}
        if "pause" in message:
            self.pause(message["pause"], bool(message["paused"]))
            return {"answers": []}
        if "known" in message:
            return {"answers": [self.known()]}
        if "nodes" in message:
            return {"answers": self._nodes.listing()}
        raise OrderRefusedError("order", "an order that is not known here")

    def call_all(self, calls: List[Json]) -> List[Json]:
        """Carries out orders side by side: ``[{node_id, order, arguments}]``; for each
        ``{"answer": …}`` or ``{"refused": {"code", "reason"}}``."""
        results: List[Json] = [{} for _ in calls]

        def work(place: int, one: Json) -> None:
            results[place] = self._call(one)

        threads = [
            threading.Thread(target=work, args=(place, one), name="castray-call", daemon=True)
            for place, one in enumerate(calls)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def _call(self, one: Json) -> Json:
        try:
            return {"answer": self.ask(one["node_id"], one["order"], one["arguments"])}
        except OrderRefusedError as refused:
            return {"refused": {"code": refused.code, "reason": refused.reason}}

    def ask(self, node_id: str, order: str, arguments: Json) -> Json:
        """One order to one node's agent.

        Raises:
            OrderRefusedError: It refused, or whatever else went wrong on the way to it.
        """
        try:
            return self._nodes.call(node_id, order, arguments)
        except OrderRefusedError:
            raise
        except Exception as error:  # Whoever asked waits for an answer, and Ray raises anything.
            first_line = (str(error).splitlines() or [""])[0][:300]
            reason = "no agent: {}: {}".format(type(error).__name__, first_line)
            raise OrderRefusedError("agent", reason) from error

    def run(self, node_id: str, spec: Json, record: Json) -> None:
        """Starts a transfer and returns.

        Args:
            node_id: Where the source is.
            spec: For the source agent's ``send``.
            record: What castray wants to find again in the result; its ``targets`` are lists in
                the order of their ``index``.

        Raises:
            OrderRefusedError: The source's agent would not start.
        """
        self.ask(node_id, "send", spec)
        run = _Run(self, node_id, spec["transfer"], record)
        with self._lock:
            self._running[run.transfer] = run
            # What an earlier attempt came to is of no interest any more.
            self._results.pop(run.transfer, None)
        run.start()

    def cancel(self, transfer: str) -> None:
        """Cancels a running transfer; nothing happens to one that has ended."""
        with self._lock:
            run = self._running.get(transfer)
        if run is not None:
            run.cancel()

    def pause(self, transfer: str, is_paused: bool) -> None:
        """Pauses a running transfer, or lets it go on; nothing happens to one that has ended."""
        with self._lock:
            run = self._running.get(transfer)
        if run is not None:
            self.ask(run.node_id, "pause" if is_paused else "unpause", {"transfer": transfer})

    def known(self) -> Json:
        """What runs and what has ended here, for a castray that was away."""
        with self._lock:
            return {
                "records": [run.record for run in self._running.values()],
                "results": list(self._results.values()),
            }

    def progressed(self, transfer: str, status: Json) -> None:
        """One look at a running transfer."""
        self._on_event({"event": "progress", "transfer": transfer, "status": status})

    def finished(self, transfer: str, result: Json) -> None:
        """A transfer has its last verdict."""
        with self._lock:
            self._running.pop(transfer, None)
            self._results[transfer] = result
            while len(self._results) > _KEPT_RESULTS:
                del self._results[next(iter(self._results))]
        self._on_finished(result)
        self._on_event({"event": "finished", "transfer": transfer, "result": result})


class _Run:
    """One transfer under way."""

    def __init__(self, desk: Desk, node_id: str, transfer: str, record: Json) -> None:
        self.transfer = transfer
        self._desk = desk
        self.node_id = node_id
        self.record = record
        self._is_cancelled = False

    def start(self) -> None:
        threading.Thread(target=self._follow, name="castray-run", daemon=True).start()

    def cancel(self) -> None:
        self._is_cancelled = True
        self._ask("cancel")

    def _ask(self, order: str, **more: Any) -> Json:
        return self._desk.ask(self.node_id, order, dict(more, transfer=self.transfer))

    def _follow(self) -> None:
        last: Optional[Json] = None
        is_broken = False
        while True:
            began = time.monotonic()
            try:
                # The agent answers at once when a target ends, else a few times a second.
                status = self._ask("status", wait=True)
            except OrderRefusedError as refused:
                is_broken = True
                status = _broken(last, self.record, refused.reason, self._is_cancelled)
            if status != last:
                last = status
                self._desk.progressed(self.transfer, status)
            if status["done"]:
                break
            time.sleep(max(_POLL_SECONDS - (time.monotonic() - began), 0.0))
        result = {"record": self.record, "status": status, "ended": time.time()}
        if not is_broken:
            # First, for whoever hears of the end may try the same transfer again at once.
            with contextlib.suppress(OrderRefusedError):
                self._ask("forget")
        self._desk.finished(self.transfer, result)


def _broken(last: Optional[Json], record: Json, reason: str, is_cancelled: bool) -> Json:
    """The last status, with a verdict for every target that had none when the agent went."""
    verdict = "cancelled" if is_cancelled else "failed"
    targets = []
    for known in (last or {}).get("targets") or [
        {"index": index, "bytes": 0, "digest": None, "seconds": None} for index in record["indexes"]
    ]:
        target = dict(known)
        if target.get("verdict") is None:
            target.update(
                verdict=verdict, code="source-agent", reason="the source's agent is gone: " + reason
            )
        targets.append(target)
    return {
        "digest": None,
        "code": "source-agent",
        "error": "the source's agent is gone",
        "done": True,
        "paused": False,
        "targets": targets,
    }
