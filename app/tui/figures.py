"""Numbers as people read them on the status line: sizes, times, gauges."""

from __future__ import annotations

from time import monotonic


def size(size_bytes: int) -> str:
    """Bytes with the unit that leaves one to three digits: 6.1 MB, 412 kB."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


def duration(seconds: float) -> str:
    """A time to wait: 4 s, 1:40, 2:05:00."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def gauge(share: float, width: int) -> tuple[str, str]:
    """The full and the empty part of a bar of `width` cells; anything above zero fills at least one cell."""
    share = min(max(share, 0.0), 1.0)
    full = min(width, max(round(share * width), 1 if share > 0 else 0))
    return "▓" * full, "░" * (width - full)


class Progress:
    """How far a phase of known length is, and when it will end."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.done = 0
        self.total = 0
        self._began = monotonic()

    def update(self, done: int, total: int) -> None:
        """Take the phase's newest count."""
        self.done, self.total = done, total

    @property
    def share(self) -> float:
        """Between 0 and 1; 0 while the total is unknown."""
        return min(self.done / self.total, 1.0) if self.total > 0 else 0.0

    @property
    def left(self) -> str:
        """The time left in words; "" while there is too little to go by."""
        spent = monotonic() - self._began
        if not 0 < self.done < self.total or spent < 0.5:
            return ""
        return f"{duration(spent * (self.total - self.done) / self.done)} left"
