"""Counts what the machine (or pod) sends and receives while training, to show that training needs no network."""

from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Traffic:
    """Bytes over all interfaces but loopback."""

    sent: int
    received: int

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.sent + other.sent, self.received + other.received)


def traffic_by_interface() -> dict[str, Traffic]:
    """Since each came up; without loopback."""
    counters = psutil.net_io_counters(pernic=True).items()
    return {name: Traffic(count.bytes_sent, count.bytes_recv) for name, count in counters if name != "lo"}


class NetworkMonitor:
    """Counts bytes from its making on."""

    def __init__(self) -> None:
        self._before = traffic_by_interface()

    def traffic(self) -> Traffic:
        """What an interface that went away meanwhile carried is unknown, and left out."""
        total = Traffic(0, 0)
        for name, now in traffic_by_interface().items():
            before = self._before.get(name, Traffic(0, 0))
            if now.sent < before.sent or now.received < before.received:
                before = Traffic(0, 0)  # another interface of that name: it counts from zero
            total += Traffic(now.sent - before.sent, now.received - before.received)
        return total
