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
from dataclasses import asdict

from unlimitedws import socketfile
from unlimitedws.activation import ActivatedListener, passed
from unlimitedws.config import Config
from unlimitedws.controlfile import AUTO
from unlimitedws.errors import ActivationError, ListenError
from unlimitedws.listener import Bindable, Listener, bound_at, listen_at, prepare, resolve, tcp_listener, wanted
from unlimitedws.place import Systemd, Tcp, Unix
from unlimitedws.socketfile import UnixListener, listen_unix
from unlimitedws.supervisor.channel import Message
from unlimitedws.supervisor.notify import Notifier
from unlimitedws.supervisor.steering import Group, turn_away
from unlimitedws.supervisor.stored import Kept, KeptFile, Store, StoredListener, ports_of


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

    def deal_steered(self, made: Sequence[tuple[Listener, int]]) -> None:
        """Adds sockets of one address that nobody else has, each with the number of its slot, in the order of listen()."""
        for listener, slot in made:
            self.all.append(listener)
            self.of_slots[slot].append(listener)
        self.groups.append(Group((listener.sock, slot) for listener, slot in made))

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
                self.store.keep([sock])
            else:
                kind = Listener
        listener = kind(sock, proxied=model.proxied, tls=model.tls)
        listener.any_port = model.any_port
        return listener

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

    def pack(self, admin: Kept | None, control: KeptFile | None) -> Message:
        """What the supervisor after an upgrade needs to know of them, and of those of the admin port and the control socket; it has
        the same descriptors."""
        listeners = {listener.sock: listener for listener in self.all}
        names = self.store.names
        # In the kernel's order, by which a group counts its members.
        tcp = [
            Kept(sock.fileno(), Bindable.of(sock), names.get(sock.fileno(), ""), slot, listeners[sock].any_port)
            for group in self.groups for sock, slot in group.members
        ]  # fmt: skip
        files = [KeptFile.of(each) for each in self.all if isinstance(each, UnixListener)]
        fds = [each.fd for each in (*tcp, *files, admin, control) if each is not None]
        return {
            "inherited": [*fds, *passed().named],
            "admin": admin and asdict(admin),
            "control": control and asdict(control),
            "tcp": [asdict(each) for each in tcp],
            "files": [asdict(each) for each in files],
            "passed": list(passed().named.items()),
            "next_number": self.store.next_number,
        }


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


class Before:
    """The listeners of the supervisor before an upgrade, as it has packed them."""

    def __init__(self, packed: Message) -> None:
        self.tcp = [Kept.unpack(each) for each in packed["tcp"]]
        self.files = [KeptFile.unpack(each) for each in packed["files"]]
        self.passed: dict[int, str] = dict(packed["passed"])
        self.next_number: int = packed["next_number"]
        self.admin = Kept.unpack(packed["admin"]) if packed["admin"] else None
        self.control = KeptFile.unpack(packed["control"]) if packed["control"] else None

    def give_to(self, store: Store) -> None:
        passed().pass_again(self.passed)
        store.inherit(self.tcp, self.files, self.next_number)

    def check(self, config: Config) -> None:
        """Raises ListenError where a place that is not listened on yet cannot be. Touches nothing that is in use."""
        for place in wanted(config):
            if isinstance(place, Unix):
                if not any(kept.is_at(place.path) for kept in self.files):
                    socketfile.probe(place)
            elif isinstance(place, Systemd):
                if not any(place.name in ("", name) for name in self.passed.values()):
                    raise ActivationError("systemd has passed no such socket at the start: restart the service")
            else:
                address = resolve(place.host, place.port)
                if place.port and not any(kept.is_at(address) for kept in self.tcp):
                    probe(address, place, config, is_ours=place.port in ports_of(self.tcp))
        self.check_for_operators(config)

    def check_for_operators(self, config: Config) -> None:
        """The same of the control socket and the admin port."""
        control = config.control_socket
        if control not in ("", AUTO) and not (self.control and self.control.is_at(control)):
            socketfile.probe(Unix(control))
        with naming_admin_flags():
            admin = admin_address(config)
            is_ours = self.admin is not None and self.admin.port == config.admin_port  # it ends before the next one begins
            if admin is not None and config.admin_port and not is_ours:
                probe(admin, Tcp(config.admin_host, config.admin_port), config)


def listen_for_slots(config: Config, slots: int, notifier: Notifier | None = None, before: Before | None = None) -> Listeners:
    """Listens wherever the settings say, on what systemd has kept of the last start before all. May block in the resolver.

    before: what the supervisor before an upgrade listened on: what is still wanted goes on.
    Raises ListenError, also where another server of this user has the port; nothing is left open then."""
    store = Store.of(os.environ, passed(), notifier or Notifier())
    if before is not None:
        before.give_to(store)
    listeners = Listeners(config, slots, store)
    with contextlib.ExitStack() as stack:
        stack.callback(listeners.close)
        stack.callback(store.close)
        for place in wanted(config):
            if isinstance(place, Tcp):
                listeners.deal_steered(tcp_listeners(place, config, slots, store))
            else:
                for made in shared_listeners(place, config, store):
                    listeners.deal(made)
        stack.pop_all()
    store.close()
    return listeners


def shared_listeners(place: Unix | Systemd, config: Config, store: Store) -> Iterator[Sequence[Listener]]:
    """The listeners of one place, in groups of one address. Raises ListenError."""
    if isinstance(place, Unix):
        yield [listen_unix(place, config, store.take_file(place.path))]
        return
    groups: dict[str, list[ActivatedListener]] = {}
    for listener in passed().listeners(place, config):
        groups.setdefault(str(listener), []).append(listener)
    yield from groups.values()


def tcp_listeners(place: Tcp, config: Config, slots: int, store: Store) -> list[tuple[Listener, int]]:
    """One SO_REUSEPORT socket for each slot, with its number; with port 0 all on the same free port. Raises ListenError.

    The first of them are those that were kept of the last start, so that nobody who waits there is lost; more than
    there are slots where there were more before."""
    address = resolve(place.host, place.port)
    kept = store.take(address, config)
    if kept:
        address = Bindable.of(kept[0][0])
    elif place.port:
        probe(address, place, config, is_ours=place.port in store.ports)
    dealt = [(sock, number % slots if slot is None else slot % slots) for number, (sock, slot) in enumerate(kept)]
    with contextlib.ExitStack() as stack:
        for sock, _ in dealt:
            stack.enter_context(sock)
        for slot in sorted(set(range(slots)) - {slot for _, slot in dealt}):
            sock = stack.enter_context(listen_at(address, place.host, place.port, config=config, reuse_port=True))
            dealt.append((sock, slot))
            address = Bindable.of(sock)
        stack.pop_all()
    # A port that the kernel chose is another one at the next start.
    is_stored = bool(place.port) and store.has_room(len(dealt), str(place))
    if is_stored:
        store.keep([sock for sock, _ in dealt])
    kind = StoredListener if is_stored else Listener
    return [(tcp_listener(place, sock, config, kind), slot) for sock, slot in dealt]


def probe(address: Bindable, place: Tcp, config: Config, *, is_ours: bool = False) -> None:
    """Raises ListenError where somebody listens on the address already.

    Bound without SO_REUSEPORT: with it the kernel lets every process of one user share a port, and two
    servers started by mistake would each get half of the clients. is_ours: the port is this server's on
    another address, which would be in the way."""
    try:
        with socket.socket(address.family, socket.SOCK_STREAM) as sock:
            prepare(sock, config, reuse_port=is_ours, dual=address.dual)
            sock.bind(address.sockaddr)
    except OSError as error:
        raise ListenError(place.host, place.port, error) from None


def listen_for_admin(config: Config, before: Kept | None = None) -> socket.socket | None:
    """The admin endpoint's listener; None where it is switched off. Raises ListenError, which names its flags.

    before: that of the supervisor before an upgrade; closed where another address is wanted."""
    kept = None if before is None else socket.socket(before.address.family, socket.SOCK_STREAM, 0, before.fd)
    with naming_admin_flags():
        address = admin_address(config)
        if kept is not None and before is not None:
            if address is not None and before.is_at(address):
                return kept
            kept.close()
        return None if address is None else listen_at(address, config.admin_host, config.admin_port, config=config)


def admin_address(config: Config) -> Bindable | None:
    return None if config.admin_port < 0 else resolve(config.admin_host, config.admin_port)


@contextlib.contextmanager
def naming_admin_flags() -> Iterator[None]:
    try:
        yield
    except ListenError as error:
        raise ListenError(error.host, error.port, error.error, flags="--admin-") from None
