"""The bottom line: context gauge, speed, what was reused, what is on disk; or the progress of what takes a while."""

from __future__ import annotations

from dataclasses import dataclass, replace

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from app.tui.figures import Progress, gauge, size


@dataclass(frozen=True)
class Facts:
    """What the line shows; None and "" leave a part out."""

    tokens: int = 0
    context: int | None = None
    tok_s: float | None = None
    reused: int | None = None
    prefilled: int | None = None
    saved: str = ""  # "saving…", "saved ✓", "not saved"
    saved_bytes: int = 0
    alarm: bool = False  # the save failed


class StatusLine(Widget):
    """One line. Parts fall away from the right where the window is narrow."""

    facts: reactive[Facts] = reactive(Facts())
    progress: reactive[Progress | None] = reactive(None, always_update=True)

    def change(self, **fields: object) -> None:
        """Change some of the facts."""
        self.facts = replace(self.facts, **fields)  # type: ignore[arg-type]

    @property
    def _gauge_width(self) -> int:
        return 10 if self.size.width >= 100 else 7 if self.size.width >= 32 else 0

    def render(self) -> Content:
        """Draw what fits."""
        parts = [self._progress_part(self.progress)] if self.progress else []
        parts += self._parts()
        width = self.size.width - 1
        line = Content(" ")
        for place, part in enumerate(parts):
            joined = line + Content.styled(" · ", "$foreground 55%") + part if place else line + part
            if place and joined.cell_length > width:
                break
            line = joined
        return line

    def _progress_part(self, progress: Progress) -> Content:
        full, empty = gauge(progress.share, self._gauge_width)
        words = [Content.assemble((f"{progress.label} ", "$accent bold"), (full, "$accent"), (empty, "$accent 30%"))]
        if progress.total > 1:
            words.append(Content(f"{progress.share:.0%}"))
        if progress.left:
            words.append(Content.styled(progress.left, "$foreground 55%"))
        return Content(" ").join(words)

    def _parts(self) -> list[Content]:
        facts = self.facts
        parts = []
        if facts.context:
            share = facts.tokens / facts.context
            colour = "$error" if share > 0.95 else "$warning" if share > 0.8 else "$primary"
            full, empty = gauge(share, self._gauge_width)
            parts.append(
                Content.assemble(
                    ("ctx ", "$foreground 55%"),
                    (full, colour),
                    (empty, f"{colour} 30%"),
                    f"{' ' * bool(full)}{facts.tokens}/{facts.context}",
                )
            )
        elif facts.tokens:
            parts.append(Content(f"ctx {facts.tokens} tokens"))
        if facts.tok_s is not None:
            parts.append(Content(f"{facts.tok_s:.1f} tok/s"))
        if facts.reused is not None:
            parts.append(
                Content.assemble(
                    ("reused ", "$foreground 55%"),
                    f"{facts.reused}",
                    (" + prefill ", "$foreground 55%"),
                    f"{facts.prefilled or 0}",
                )
            )
        if facts.saved:
            words = (
                f"{facts.saved} {size(facts.saved_bytes)}" if facts.saved_bytes and "✓" in facts.saved else facts.saved
            )
            style = "$error bold" if facts.alarm else "$success" if "✓" in words else "$foreground 55%"
            parts.append(Content.styled(words, style))
        return parts
