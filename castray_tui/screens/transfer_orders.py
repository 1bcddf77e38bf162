"""What may be asked of a transfer that stands on the screen: pause, go on, try again, cancel."""

from __future__ import annotations

from textual import work
from textual.screen import Screen

from castray_tui.core.models import Transfer
from castray_tui.messages import (
    CancelTransfer,
    PauseTransfer,
    ResumeTransfer,
    RetryTransfer,
    UnpauseTransfer,
)
from castray_tui.screens.widgets.transfer_columns import targets_text
from castray_tui.screens.widgets.transfer_rates import ENDED


class TransferOrders(Screen[None]):
    """A screen on which one transfer is chosen, and keys give orders for it."""

    def chosen_transfer(self) -> Transfer | None:
        """The transfer that is meant; None where there is none."""
        raise NotImplementedError

    def action_pause_transfer(self) -> None:
        """Pauses a transfer that is under way, or lets a paused one go on."""
        transfer = self._under_way()
        if transfer is None:
            return
        if transfer.state == "paused":
            self.post_message(UnpauseTransfer(transfer.id))
        else:
            self.post_message(PauseTransfer(transfer.id))

    def action_retry_transfer(self) -> None:
        """Sends again to the targets that failed."""
        transfer = self._ended()
        if transfer is None:
            return
        if any(target.verdict == "failed" for target in transfer.targets):
            self.post_message(RetryTransfer(transfer.id))
        else:
            self._decline("None of its targets failed.")

    def action_resume_transfer(self) -> None:
        """Goes on with a transfer that was interrupted or cancelled, or that is paused."""
        transfer = self.chosen_transfer()
        if transfer is not None and transfer.state == "paused":
            self.post_message(UnpauseTransfer(transfer.id))
        elif self._ended() is None or transfer is None:
            return
        elif transfer.state == "done":
            self._decline("Nothing is left to send: all its targets have everything.")
        else:
            self.post_message(ResumeTransfer(transfer.id))

    @work(name="cancel transfer", group="question", exclusive=True)
    async def action_cancel_transfer(self) -> None:
        """Cancels a transfer, after a question."""
        transfer = self._under_way()
        if transfer is None:
            return
        # Imported when it is asked: this module is needed for the first frame.
        from castray_tui.screens.confirm import ConfirmDialog  # noqa: PLC0415

        dialog = ConfirmDialog(
            f"Cancel this transfer to {targets_text(transfer)}?",
            f"{transfer.source}: targets without a verdict keep what they held before.",
            "Cancel it",
        )
        if await self.app.push_screen_wait(dialog):
            self.post_message(CancelTransfer(transfer.id))

    def _known(self) -> Transfer | None:
        transfer = self.chosen_transfer()
        if transfer is None:
            self._decline("Put the cursor on a transfer.")
        return transfer

    def _under_way(self) -> Transfer | None:
        transfer = self._known()
        if transfer is not None and transfer.state in ENDED:
            self._decline(f"The transfer has ended already: {transfer.state}.")
            return None
        return transfer

    def _ended(self) -> Transfer | None:
        transfer = self._known()
        if transfer is not None and transfer.state not in ENDED:
            self._decline("The transfer is still under way.")
            return None
        return transfer

    def _decline(self, why: str) -> None:
        self.notify(why, severity="warning", timeout=3, markup=False)
