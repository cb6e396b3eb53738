"""The listening sockets of all worker slots, bound before any fork.

A listener belongs to its slots and not to the processes in them. The supervisor holds it for life, so that
clients which the kernel has queued when a worker dies are served by its successor instead of being reset.

    TCP             one SO_REUSEPORT socket for each slot, among which the kernel spreads new connections (see steering.py)
    Unix            one socket, which every slot accepts from: whoever comes too late finds nothing (EAGAIN)
    from systemd    as many as the unit has: dealt out where they are bound to one address, else shared
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterable, Iterator, Sequence

from unlimitedws.activation import ActivatedListener, passed
from unlimitedws.config import Config
from unlimitedws.errors import ListenError
from unlimitedws.listener import Bindable, Listener, bound_at, listen_at, prepare, resolve, tcp_listener, wanted
from unlimitedws.place import Place, Systemd, Tcp, Unix
from unlimitedws.socketfile import listen_unix
from unlimitedws.supervisor.notify import Notifier
from unlimitedws.supervisor.steering import Group, turn_away
from unlimitedws.supervisor.stored import Store, StoredListener


class Listeners:
    """Every listener of a server, and which of them each slot accepts from.

    groups: those that are ours alone, so that new connections can be steered.  store: what systemd keeps of them."""

    def __init__(self, config: Config, slots: int, store: Store) -> None:
        self.config, self.store = config, store
        self.all: list[Listener] = []
        self.groups: list[Group] = []
        self.of_slots: list[list[Listener]] = [[] for _ in range(slots)]

    def __str__(self) -> str:
        """The addresses, each once."""
        return ", ".join(self.names)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(map(str, self.all)))

    @property
    def port(self) -> int | None:
        """Of the first listener that has one."""
        return next((listener.port for listener in self.all if listener.is_tcp), None)

    @property
    def descriptors(self) -> frozenset[int]:
        return frozenset(listener.sock.fileno() for listener in self.all)

    def deal(self, made: Sequence[Listener]) -> None:
        """Adds listeners of one address: each is somebody's, and each slot has one at least."""
        slots = len(self.of_slots)
        self.all += made
        for number, mine in enumerate(self.of_slots):
            mine += made[number::slots] if len(made) >= slots else [made[number % len(made)]]

    def deal_steered(self, made: Sequence[Listener]) -> None:
        """The same for sockets of one address that nobody else has, in the order of listen()."""
        self.deal(made)
        slots = len(self.of_slots)
        self.groups.append(Group((listener.sock, number % slots) for number, listener in enumerate(made)))

    @property
    def ending(self) -> list[Listener]:
        """TCP listeners of ours that end with this server: what waits in their queues then is lost."""
        return [listener for listener in self.all if type(listener) is Listener]

    # ---- slots that come and go

    def new_slot(self) -> list[Listener]:
        """A further slot: what it shares with others. `open` gives it what is its own."""
        number, steered = len(self.of_slots), {sock for group in self.groups for sock, _ in group.members}
        by_address: dict[str, list[Listener]] = {}
        for listener in self.all:
            if listener.sock not in steered:
                by_address.setdefault(str(listener), []).append(listener)
        self.of_slots.append([made[number % len(made)] for made in by_address.values()])
        return self.of_slots[number]

    def bind(self) -> list[socket.socket]:
        """A socket for each group, bound to its address but not in it yet: no client comes. Raises ListenError."""
        with contextlib.ExitStack() as stack:
            bound = [stack.enter_context(self.bind_like(group)) for group in self.groups]
            stack.pop_all()
        return bound

    def bind_like(self, group: Group) -> socket.socket:
        address = Bindable.of(group.members[0][0])
        host, port = address.sockaddr[:2]
        return bound_at(address, host, port, config=self.config, reuse_port=True)

    def open(self, slot: int, bound: Sequence[socket.socket]) -> list[Listener]:
        """Lets clients come to what `bind` gave, which is this slot's. Raises OSError."""
        opened = []
        for group, sock in zip(self.groups, bound, strict=True):
            sock.listen(self.config.backlog)
            group.join(sock, slot)
            opened.append(self.like(self.of(group.members[0][0]), sock))
        self.all += opened
        self.of_slots[slot] += opened
        return opened

    def like(self, model: Listener, sock: socket.socket) -> Listener:
        """A listener of the same address, kept by systemd as the others are."""
        kind = type(model)
        if kind is StoredListener:
            if self.store.has_room(1, str(model)):
                self.store.keep(sock)
            else:
                kind = Listener
        return kind(sock, proxied=model.proxied, tls=model.tls)

    def of(self, sock: socket.socket) -> Listener:
        return next(listener for listener in self.all if listener.sock is sock)

    def group_of(self, listener: Listener) -> Group | None:
        """The group that it can be steered in."""
        return next((group for group in self.groups if any(sock is listener.sock for sock, _ in group.members)), None)

    def pass_on(self, listener: Listener, slot: int) -> None:
        """Another slot accepts from it now; steered are new connections to that one's first listener."""
        if (group := self.group_of(listener)) is not None:
            group.pass_on(listener.sock, slot)
        self.of_slots[slot].append(listener)

    def can_end(self, listener: Listener) -> bool:
        """Whether nobody misses it: it is not systemd's alone, and the others of its group stay in their order, in
        which the next start finds them in systemd's store."""
        group = self.group_of(listener)
        return group is not None and group.is_last(listener.sock)

    def end(self, listener: Listener, slot: int) -> None:
        """Ends one for good."""
        group = self.group_of(listener)
        assert group is not None
        Listener.stop_accepting(listener)  # of a stored one too: it is not to be there at the next start
        group.leave(listener.sock)
        self.store.forget(listener.sock)
        self.of_slots[slot].remove(listener)
        self.all.remove(listener)
        listener.close()

    # ---- the end

    def stop_accepting(self) -> None:
        """Ends listening for all processes, except where systemd goes on listening for the next start."""
        for listener in self.all:
            listener.stop_accepting()

    def close(self) -> None:
        for listener in self.all:
            listener.close()


def has_waiting(listeners: Iterable[Listener]) -> bool:
    """Whether a client waits in one of these queues."""
    poll = select.poll()
    for listener in listeners:
        poll.register(listener.sock, select.POLLIN)
    return bool(poll.poll(0))


def turn_away_from(listeners: Iterable[Listener]) -> None:
    """Lets nobody begin to connect where listening is about to end; who has begun may still be accepted."""
    for listener in listeners:
        with contextlib.suppress(OSError):  # refused: then a few are reset at the end
            turn_away(listener.sock)


def listen_for_slots(config: Config, slots: int, notifier: Notifier | None = None) -> Listeners:
    """Listens wherever the settings say, on what systemd has kept of the last start before all. May block in the resolver.

    Raises ListenError, also where another server of this user has the port; nothing is left open then."""
    store = Store.of(os.environ, passed(), notifier or Notifier())
    listeners = Listeners(config, slots, store)
    with contextlib.ExitStack() as stack:
        stack.callback(listeners.close)
        stack.callback(store.close)
        for place in wanted(config):
            for made in listeners_of(place, config, slots, store):
                if isinstance(place, Tcp):
                    listeners.deal_steered(made)
                else:
                    listeners.deal(made)
        stack.pop_all()
    store.close()
    return listeners


def listeners_of(place: Place, config: Config, slots: int, store: Store) -> Iterator[Sequence[Listener]]:
    """The listeners of one place, in groups of one address. Raises ListenError."""
    if isinstance(place, Unix):
        yield [listen_unix(place, config)]
    elif isinstance(place, Systemd):
        groups: dict[str, list[ActivatedListener]] = {}
        for listener in passed().listeners(place, config):
            groups.setdefault(str(listener), []).append(listener)
        yield from groups.values()
    else:
        yield tcp_listeners(place, config, slots, store)


def tcp_listeners(place: Tcp, config: Config, slots: int, store: Store) -> list[Listener]:
    """One SO_REUSEPORT socket for each slot; with port 0 all on the same free port. Raises ListenError.

    The first of them are those that were kept of the last start, so that nobody who waits there is lost; more than
    there are slots where there were more before."""
    address = resolve(place.host, place.port)
    socks = store.take(address, config) if place.port else []
    kept = len(socks)
    if place.port and not kept:
        probe(address, place, config)
    with contextlib.ExitStack() as stack:
        for sock in socks:
            stack.enter_context(sock)
        for _ in range(kept, slots):
            socks.append(stack.enter_context(listen_at(address, place.host, place.port, config=config, reuse_port=True)))
            address = address._replace(sockaddr=socks[0].getsockname())
        stack.pop_all()
    # A port that the kernel chose is another one at the next start.
    is_stored = bool(place.port) and store.has_room(len(socks), str(place))
    for sock in socks[kept:] if is_stored else ():
        store.keep(sock)
    return [tcp_listener(place, sock, config, StoredListener if is_stored else Listener) for sock in socks]


def probe(address: Bindable, place: Tcp, config: Config) -> None:
    """Raises ListenError where somebody listens on the address already.

    Bound without SO_REUSEPORT: with it the kernel lets every process of one user share a port, and two
    servers started by mistake would each get half of the clients."""
    try:
        with socket.socket(address.family, socket.SOCK_STREAM) as sock:
            prepare(sock, config, reuse_port=False, dual=address.dual)
            sock.bind(address.sockaddr)
    except OSError as error:
        raise ListenError(place.host, place.port, error) from None


def listen_for_admin(config: Config) -> socket.socket | None:
    """The admin endpoint's listener; None where it is switched off. Raises ListenError, which names its flags."""
    if config.admin_port < 0:
        return None
    try:
        address = resolve(config.admin_host, config.admin_port)
        return listen_at(address, config.admin_host, config.admin_port, config=config)
    except ListenError as error:
        raise ListenError(error.host, error.port, error.error, flags="--admin-") from None
