"""Whose word is believed: the addresses of one's own proxies."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton

from unlimitedws.wire.address import UNIX, Address, ip

MAPPED = IPv6Network("::ffff:0:0/96")


class Trusted:
    """A list of addresses, networks and `unix`, separated by commas: `10.0.0.0/8, ::1, unix`.

    `unix` trusts every peer of a Unix socket: who may connect there is decided by the file's mode and owner.
    Raises ValueError, which names the item and says what would be right."""

    def __init__(self, text: str) -> None:
        items = [item.strip() for item in text.split(",") if item.strip()]
        self.unix = UNIX in items
        networks = [network_of(item) for item in items if item != UNIX]
        self.hosts = frozenset(str(network[0]) for network in networks if network.num_addresses == 1)
        self.nets = {
            family: [(int(net.netmask), int(net.network_address)) for net in networks if net.version == version and net.num_addresses > 1]
            for family, version in ((AF_INET, 4), (AF_INET6, 6))
        }

    def __bool__(self) -> bool:
        """Whether anybody is trusted."""
        return self.unix or bool(self.hosts) or any(self.nets.values())

    def __contains__(self, address: Address) -> bool:
        """Whether the peer with this address is trusted. 0.2 us for a single address, 1 us for a network."""
        if isinstance(address, str):
            return self.unix
        host = address[0]
        if host in self.hosts:
            return True
        family = AF_INET6 if ":" in host else AF_INET
        nets = self.nets[family]
        if not nets:
            return False
        number = int.from_bytes(inet_pton(family, host))
        return any(number & mask == net for mask, net in nets)


def network_of(item: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(ip(item) if "/" not in item else item)
    except ValueError as error:
        raise ValueError(f"{item!r} is no address, no network and not 'unix' ({error})") from None
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        raise ValueError(f"{item!r} is a network of IPv4 addresses: write it as IPv4, as peers are shown")
    return network
