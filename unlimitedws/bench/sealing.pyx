# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""TLS, for wss:// servers: what goes out is sealed and what comes in is opened, by Python's ssl module.

The only place of the loop where Python runs, and only for wss://. A message then costs this program several times as much."""

from libc.stdint cimport uint8_t

from unlimitedws.bench.peers cimport Peer
from unlimitedws.engine.kernel cimport shutdown


cdef extern from "sys/socket.h" nogil:
    enum: SHUT_RD


cdef class Sealing(Peers):
    # ---- what the floors above do

    cdef bint greet(self, Peer* peer) noexcept nogil:
        """Says what comes first on a connection that is up. False: it is gone."""
        return True

    cdef bint take(self, Peer* peer, uint8_t* at, size_t n) noexcept nogil:
        """What came, by what is expected. False: the connection is gone."""
        return True

    # ----

    cdef bint put(self, Peer* peer, const uint8_t* data, size_t size) noexcept nogil:
        if not self.is_secure:
            return Peers.put(self, peer, data, size)
        with gil:
            try:
                return self.say(peer, self.sealed[peer - self.peers].seal(data[:size]))
            except OSError:  # ssl.SSLError is one: OpenSSL gave up on this connection before
                self.count.tls_errors += 1
                self.ended(peer)
                return False

    cdef bint begin_tls(self, Peer* peer) noexcept nogil:
        """The first words of TLS; `greet` follows when it is up. False: the connection is gone."""
        with gil:
            tls = self.sealed[peer - self.peers] = self.make_tls()
            return self.say(peer, tls.begin())

    cdef bint open_tls(self, Peer* peer, uint8_t* at, size_t n) noexcept nogil:
        """Opens what came. False: the connection is gone."""
        with gil:
            tls = self.sealed[peer - self.peers]
            if tls is None:  # it stopped before TLS, and hears of it
                return True
            was_up = tls.is_up
            try:
                plain = tls.open(at[:n])
            except OSError:
                self.count.tls_errors += 1
                if self.say(peer, tls.take()):  # an alert says why
                    self.ended(peer)
                return False
            if not self.say(peer, tls.take()) or (tls.is_up and not was_up and not self.greet(peer)):
                return False
            if plain and not self.take(peer, <uint8_t*><bytes>plain, len(<bytes>plain)):
                return False
            return not tls.has_ended or self.part(peer, tls)

    cdef bint part(self, Peer* peer, object tls) noexcept:
        """Their close_notify ends the stream (RFC 8446, section 6.1): some servers wait for ours before they end the connection.

        False: it is gone. Else the socket gives its end next, as where the server ended it first."""
        if not self.say(peer, tls.part()):
            return False
        shutdown(peer.fd, SHUT_RD)
        return True

    cdef bint say(self, Peer* peer, bytes sealed) noexcept:
        """Sends what is sealed already. False: the connection is gone."""
        return not sealed or Peers.put(self, peer, <const uint8_t*>sealed, len(sealed))

    cdef void forget_tls(self, Peer* peer) noexcept nogil:
        with gil:
            self.sealed[peer - self.peers] = None
