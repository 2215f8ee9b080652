"""Counts what the machine (or pod) sends and receives while training, to show that training needs no network."""

from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Traffic:
    """Bytes over all interfaces but loopback."""

    sent: int
    received: int

    def __sub__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.sent - other.sent, self.received - other.received)

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.sent + other.sent, self.received + other.received)


def traffic_now() -> Traffic:
    counters = [count for name, count in psutil.net_io_counters(pernic=True).items() if name != "lo"]
    return Traffic(sum(count.bytes_sent for count in counters), sum(count.bytes_recv for count in counters))


class NetworkMonitor:
    """Counts bytes from its making on."""

    def __init__(self) -> None:
        self._before = traffic_now()

    def traffic(self) -> Traffic:
        return traffic_now() - self._before
