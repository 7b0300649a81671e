"""An offer at the end of the transcript: Enter takes it, Esc or the next message leaves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from app.tui.plain import literal


@dataclass(frozen=True)
class Offer:
    """One sentence, what Enter does in words, and the functions behind yes and no."""

    sentence: str
    yes: str
    accept: Callable[[], None]
    decline: Callable[[], None] | None = None
    no: str = ""
    text: str = ""  # Enter on a prompt that holds this text takes the offer, too


class OfferView(Vertical, can_focus=True):
    """Shows one offer. Enter here, or on an empty prompt, or a click on the button, takes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("enter", "take_offer", "Take the offer"),
        ("space", "take_offer", "Take the offer"),
    ]

    @dataclass
    class Taken(Message):
        """The person said yes."""

        offer: Offer

    def __init__(self, offer: Offer) -> None:
        super().__init__()
        self.offer = offer

    def compose(self) -> ComposeResult:
        """The sentence, then the choice."""
        yield Static(literal(self.offer.sentence), classes="sentence")
        choice = [Content.assemble((" Enter ", "$background on $accent bold"), f" {self.offer.yes}")]
        if self.offer.no:
            choice.append(Content.assemble((" Esc ", "$foreground on $panel"), f" {self.offer.no}"))
        yield Static(Content("   ").join(choice), classes="choice")

    def action_take_offer(self) -> None:
        """Say yes."""
        self.post_message(self.Taken(self.offer))

    def on_click(self) -> None:
        """A click is a yes."""
        self.action_take_offer()
