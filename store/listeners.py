"""Who is woken in this process by what was committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Wake = Callable[[str], None]


class Listeners:
    """Callbacks by channel.  They are called in the event loop, and must neither wait nor raise."""

    def __init__(self) -> None:
        self._by_channel: dict[str, list[Wake]] = {}

    @property
    def channels(self) -> Iterable[str]:
        """The channels that somebody listens to."""
        return tuple(self._by_channel)

    def add(self, channel: str, wake: Wake) -> Callable[[], None]:
        """Call `wake` from now on; gives the function that ends this."""
        self._by_channel.setdefault(channel, []).append(wake)

        def end() -> None:
            wakes = self._by_channel.get(channel, [])
            if wake in wakes:
                wakes.remove(wake)

        return end

    def wake(self, channel: str, payload: str) -> None:
        """Call everyone who listens to `channel`."""
        for wake in tuple(self._by_channel.get(channel, ())):
            wake(payload)

    def wake_all(self) -> None:
        """Call everyone, with an empty payload: something may have been missed."""
        for channel in self.channels:
            self.wake(channel, "")
