"""Which slots the kernel gives new connections to: weights for the sockets of a SO_REUSEPORT group.

A classic BPF program on the group answers with the index of a socket for each new connection (SO_ATTACH_REUSEPORT_CBPF,
socket(7); no privilege is needed). Ours draws a random number and compares it with thresholds, one for each
socket that has a weight. What one has to know of the kernel (net/core/sock_reuseport.c):

    the index      is the place in the order of listen(), not of bind()
    one leaves     (shut down, or closed everywhere): the last one takes its index, and the program stays as it was
    one comes      it is the last one; the program stays as it was
    no such index  the kernel chooses by its hash, as it does without a program
    the group      are the sockets of one address in one family, whichever processes hold them; it has one program
"""

from __future__ import annotations

import array
import errno
import logging
import socket
import struct
from collections.abc import Iterable, Sequence

log = logging.getLogger("unlimitedws.supervisor")

# <asm-generic/socket.h>; the socket module does not name them
SO_ATTACH_FILTER = 26
SO_ATTACH_REUSEPORT_CBPF = 51
SO_DETACH_REUSEPORT_BPF = 68  # since Linux 5.3

# <linux/filter.h>, <linux/bpf_common.h>: load a word or a byte, jump, return
LD_W_ABS, LD_B_ABS, JMP_JGE, JMP_JSET, RET = 0x20, 0x30, 0x35, 0x45, 0x06
RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM: not a place in the packet but 32 random bits

TCP_FLAGS = 13  # place in the TCP header, where the filter of a TCP socket begins to count
SYN = 0x02
WHOLE = 0xFFFFFFFF

Instruction = tuple[int, int, int, int]
"""Opcode, how many to skip when true, when false, operand."""

SPAN = 1 << 32


def choice(weights: Sequence[int]) -> list[Instruction]:
    """A program that gives index i with probability weights[i] / sum(weights); never one of weight 0.

    weights: at least one of them above 0."""
    chosen = [(index, weight) for index, weight in enumerate(weights) if weight]
    total, below = sum(weights), 0
    program: list[Instruction] = [(LD_W_ABS, 0, 0, RANDOM)]
    for index, weight in chosen[:-1]:
        below += weight
        program += [(JMP_JGE, 1, 0, SPAN * below // total), (RET, 0, 0, index)]
    return [*program, (RET, 0, 0, chosen[-1][0])]


NO_SYN: list[Instruction] = [(LD_B_ABS, 0, 0, TCP_FLAGS), (JMP_JSET, 0, 1, SYN), (RET, 0, 0, 0), (RET, 0, 0, WHOLE)]
"""A filter that drops the first packet of a connection, and lets those pass that finish a handshake."""


def attach(listener: socket.socket, weights: Sequence[int]) -> None:
    """Spreads the new connections of a listener's group by these weights, in the order of listen().

    Equal weights, all 0 too, take the program away: the kernel's hash then spreads them evenly. Raises OSError
    where the kernel refuses; what was there before stays."""
    if len(set(weights)) > 1:
        set_program(listener, SO_ATTACH_REUSEPORT_CBPF, choice(weights))
        return
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:  # before Linux 5.3 a program could only be replaced
            set_program(listener, SO_ATTACH_REUSEPORT_CBPF, choice([1] * len(weights)))
        elif error.errno != errno.ENOENT:  # there was none
            raise


def turn_away(listener: socket.socket) -> None:
    """Lets nobody begin to connect; who has begun gets through. Raises OSError where the kernel refuses.

    The client tries again, a second later first, and is refused when the listener is shut down by then. Without this
    the clients that are in the queue when a listener is shut down would be reset."""
    set_program(listener, SO_ATTACH_FILTER, NO_SYN)


def set_program(sock: socket.socket, option: int, program: Sequence[Instruction]) -> None:
    code = array.array("B", b"".join(struct.pack("=HBBI", *instruction) for instruction in program))  # struct sock_filter
    address, _ = code.buffer_info()
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("HP", len(program), address))  # struct sock_fprog


class Group:
    """The sockets of one SO_REUSEPORT group, each with the number of its slot, in the kernel's order.

    members: as they were listened on."""

    def __init__(self, members: Iterable[tuple[socket.socket, int]]) -> None:
        self.members = list(members)
        self.attached: list[int] | None = None

    def join(self, sock: socket.socket, slot: int) -> None:
        """A socket of the same address has begun to listen."""
        self.members.append((sock, slot))
        self.attached = None

    def leave(self, sock: socket.socket) -> None:
        """A socket of the group was shut down: the last one takes its index."""
        index = [member for member, _ in self.members].index(sock)
        self.members[index] = self.members[-1]
        self.members.pop()
        self.attached = None

    def pass_on(self, sock: socket.socket, slot: int) -> None:
        """Another slot accepts from this socket now."""
        index = [member for member, _ in self.members].index(sock)
        self.members[index] = (sock, slot)

    def is_last(self, sock: socket.socket) -> bool:
        """Whether the others keep their indexes when this one leaves."""
        return self.members[-1][0] is sock

    def weigh(self, weights: Sequence[int]) -> None:
        """Gives each slot its weight; a slot that has several of the sockets gets new connections on the first.

        Raises OSError where the kernel refuses."""
        served: set[int] = set()
        mine = []
        for _, slot in self.members:
            mine.append(0 if slot in served else weights[slot])
            served.add(slot)
        if self.members and mine != self.attached:
            attach(self.members[0][0], mine)
            self.attached = mine


class Steering:
    """Keeps new connections away from slots that nobody serves, for as long as somebody serves another one.

    Only where each slot has a socket of its own. Where the kernel refuses, one line says so and its hash stays."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.refused = False

    def steer(self, is_served: Sequence[bool]) -> None:
        """is_served: of each slot, whether a worker accepts there now."""
        for group in () if self.refused else self.groups:
            try:
                group.weigh([int(served) for served in is_served])
            except OSError as error:
                self.refuse(error)

    def refuse(self, error: OSError) -> None:
        if not self.refused:
            log.warning(
                "the kernel lets nobody steer new connections (%s): it spreads them over all workers, "
                "and those of one that starts wait for it", error.strerror,
            )  # fmt: skip
        self.refused = True
