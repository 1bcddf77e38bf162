"""A transfer at its beginning: as it stands in the journal before anybody was asked."""

from __future__ import annotations

import getpass
import secrets
import socket
import time
from dataclasses import replace

from castray_tui.core.errors import UsageError
from castray_tui.core.models import Transfer, TransferLeg, TransferRequest, TransferTarget
from castray_tui.core.text_safety import safe_text
from castray_tui.core.transfer import progress
from castray_tui.core.transfer.addresses import parse_address
from castray_tui.core.transfer.selection import Leg, SelectedTarget, Selection

_SOURCE_LIMIT = 2000


def new_transfer(request: TransferRequest, selection: Selection) -> Transfer:
    """A transfer that nothing is known of yet but who takes part.

    Args:
        request: What was asked for.
        selection: Whom that means.
    """
    return Transfer(
        id=secrets.token_hex(16),
        kind=selection.kind,
        state="planning",
        source=source_text(request, selection),
        targets=tuple(_row(selected, selection) for selected in selection.targets),
        started=time.time(),
        route=tuple(
            f"{selection.legs[each.leg].label} → {each.place.label}" for each in selection.targets
        ),
        overwrite=request.overwrite,
        rate_limit_bytes_per_second=request.rate_limit_bytes_per_second,
        # Another castray, elsewhere on this machine, may have to go on with it.
        request=replace(
            request,
            sources=tuple(str(parse_address(text)) for text in request.sources),
            targets=tuple(str(parse_address(text)) for text in request.targets),
        ),
        legs=tuple(_leg(leg) for leg in selection.legs),
        user=_user(),
    )


def source_text(request: TransferRequest, selection: Selection) -> str:
    """The sources for eyes: resolved where there is one source node, else as they were named."""
    if len(selection.legs) == 1:
        return safe_text(str(selection.legs[0]), limit=_SOURCE_LIMIT)
    return safe_text(", ".join(request.sources), limit=_SOURCE_LIMIT)


def transfer_again(transfer: Transfer, *, only_failed: bool) -> Transfer:
    """A transfer that has ended, about to go on under its own ID.

    Args:
        only_failed: Whether targets that were cancelled stay so.

    Raises:
        UsageError: Nothing is left to be sent.
    """
    targets = tuple(
        replace(target, verdict=None, reason=None, digest=None, bytes=0, ended=None)
        if target.verdict == "failed" or (not only_failed and target.verdict not in progress.GOOD)
        else target
        for target in transfer.targets
    )
    if all(target.verdict is not None for target in targets):
        raise UsageError(
            f"Nothing is left to send: no target of transfer {transfer.id} "
            + ("has failed" if only_failed else "lacks anything"),
            remedy="Send the source again with `castray cp`",
        )
    again = replace(transfer, state="planning", ended=None, error=None)
    return progress.with_targets(again, targets)


def _row(selected: SelectedTarget, selection: Selection) -> TransferTarget:
    place, leg = selected.place, selection.legs[selected.leg]
    return TransferTarget(
        cluster=place.node.cluster,
        node=place.node.name,
        path=safe_text(place.path),
        node_id=None if place.node.is_local else place.node.node_id,
        via=(leg.label, place.label),
        leg=selected.leg,
        source=safe_text(str(leg)) if len(selection.legs) > 1 else None,
        asked_path=place.path,
        address=place.node.address,
    )


def _leg(leg: Leg) -> TransferLeg:
    return TransferLeg(
        cluster=leg.node.cluster,
        node=leg.node.name,
        paths=leg.paths,
        node_id=None if leg.node.is_local else leg.node.node_id,
        address=leg.node.address,
    )


def _user() -> str | None:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user without a name
        return None
