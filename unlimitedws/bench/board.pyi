"""Types of the board that load processes count on."""

from mmap import mmap

ROW_BYTES: int
LONGEST_LATENCY_NS: int

def bucket(ns: int) -> int:
    """Where a latency is counted: the index of the same value in an HdrHistogram(1, LONGEST_LATENCY_NS, 3)."""

class Row:
    """One load process's row of a board: `ROW_BYTES` for each process, zeroed and shared. Raises IndexError."""

    def __init__(self, board: mmap | bytearray, number: int) -> None: ...
    @property
    def number(self) -> int: ...
    @property
    def rows(self) -> int:
        """How many the board has."""

    @property
    def counters(self) -> dict[str, int]: ...
    @property
    def closes(self) -> dict[int, int]:
        """Close code of the server to how many connections it ended so; those that answered a Close of ours left out."""

    @property
    def statuses(self) -> dict[int, int]:
        """HTTP status to how many handshakes it refused."""

    @property
    def errnos(self) -> dict[str, dict[int, int]]:
        """System call to errno to number."""

    def histogram(self, name: str) -> tuple[int, int, list[tuple[int, int]]]:
        """(least, most, [(ns, number)]) of `connect`, `latency`, `late` or `kept`, where ns is the least value of its HDR bucket."""

    def forget(self, name: str) -> None:
        """Empties a histogram."""
