# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""The clock hand: one sweep of the table a second, a slice at a time."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from unlimitedws.engine cimport codec
from unlimitedws.engine.kernel cimport *
from unlimitedws.engine.opening cimport Opening
from unlimitedws.engine.output cimport pool_trim
from unlimitedws.engine.sender cimport Range
from unlimitedws.engine.table cimport *

from unlimitedws.wire import closing
from unlimitedws.wire.closing import Cause


cdef enum:
    LINGER_MS = 2000                # contract.LINGER_S
    LAGGED_MS = 1000                # a clock tick so late means: the loop stood still, not the peers
    ACCEPT_RETRY_MS = 1000
    TICKS_PER_S = 8                 # contract.TICKS_PER_S
    CROWD = 64                      # so few, or fewer, leave nothing behind that would be worth a look; a crowd's last ones do

cdef double ENDLESS = 1e18          # tokens; no infinity, which times 0 seconds is no number


cdef uint32_t milliseconds(object seconds) except? 0xFFFFFFFF:
    return <uint32_t>min(seconds * 1000, 0x7FFFFFFF)


cdef class Clock(Opening):
    def __init__(self, config, front, row, call_soon, call_soon_threadsafe):
        Opening.__init__(self, config, front, row, call_soon, call_soon_threadsafe)
        self.handshake_ms, self.stuck_ms = milliseconds(config.handshake_timeout_s), milliseconds(config.stuck_timeout_s)
        self.ping_ms, self.pong_ms = milliseconds(config.ping_interval_s), milliseconds(config.ping_timeout_s)
        self.close_ms, self.idle_ms = milliseconds(config.close_timeout_s), milliseconds(config.idle_timeout_s)
        self.now = self.last_tick = clock_ms()
        self.take_rates(config)

    cdef int take_rates(self, config) except -1:
        """A rate of 0 is none: its tokens never end."""
        self.messages_per_s, self.bytes_per_s = config.messages_per_s or ENDLESS, config.bytes_per_s or ENDLESS
        self.most_messages = max(1.0, self.messages_per_s * config.rate_burst_s)
        self.most_bytes = max(1.0, self.bytes_per_s * config.rate_burst_s)
        self.rated = bool(config.messages_per_s or config.bytes_per_s)
        self.cuts_rates = config.rate_policy == "close"
        self.logs_access = config.access_log
        if self.rated or self.logs_access:
            self.meters = <Meter*>reserve(self.table_room * sizeof(Meter))
        return 0

    def tick(self):
        cdef int first, last, fd
        if self.epoll < 0:
            return
        self.now = clock_ms()
        if <uint32_t>(self.now - self.last_tick) > LAGGED_MS:
            # We stood still (a suspended machine, a handler that blocked): their answers may lie
            # unread. Nobody is judged before he had his time again.
            self.grace_until, self.in_grace = self.now + self.pong_ms, True
        elif self.in_grace and <int>(self.now - self.grace_until) >= 0:
            self.in_grace = False
        self.last_tick = self.now
        if self.accept_paused and <uint32_t>(self.now - self.paused_ms) >= ACCEPT_RETRY_MS:
            self.descriptor_freed()
        first = self.hand
        last = min(first + self.highest // TICKS_PER_S + 1, self.highest + 1)
        self.running = True
        try:
            for fd in range(first, last):
                if self.table[fd].phase != FREE:
                    self.judge(fd, &self.table[fd])
            self.run_deferred()
        finally:
            self.running = False
        self.hand = last
        if last > self.highest:
            self.hand = 0
            self.give_back()
        self.wake()

    cdef int judge(self, int fd, Entry* e) except -1:
        """Deadlines of one connection, once a second."""
        cdef uint32_t silent, since
        if e.phase == DEPARTING:
            return 0
        if e.interest & 4 and self.stuck_ms and (e.phase == OPEN or e.phase == STREAM) and self.still_ms(fd, e) >= self.stuck_ms:
            return self.lose(fd, e, Cause.SLOW_CONSUMER)
        if e.flags & THROTTLED:
            self.let_go_on(fd, e)
        if e.flags & CONTROLS:
            e.flags &= ~CONTROLS
            if e.flags & FLOODING:
                self.flood_ebbs(fd, e)
        silent, since = self.now - e.seen_ms, self.now - e.active_ms
        if e.phase == OPEN:
            if self.idle_ms and since >= self.idle_ms and not e.flags & (HELD | THROTTLED):
                return self.close_politely(fd, e, closing.pack_close(1000, "idle"), 1000, "idle", Cause.IDLE)
            if self.ping_ms:
                return self.heartbeat(fd, e, silent)
        elif e.phase == HANDSHAKE:
            if since >= self.handshake_ms and (not e.interest & 4 or self.still_ms(fd, e) >= self.handshake_ms):
                return self.lose(fd, e, Cause.HANDSHAKE_TIMEOUT)
        elif e.phase == CLOSING:
            if since >= self.close_ms:
                return self.lose(fd, e, Cause.APP_CLOSED)
        elif e.phase == LINGER and self.has_lingered(fd, e, since):
            return self.end(fd, e)
        return 0

    cdef bint has_lingered(self, int fd, Entry* e, uint32_t since) except -1:
        if e.flags & SHUT:
            return since >= <uint32_t>LINGER_MS
        # A slow reader of an answer over HTTP has all the time he needs, as long as he reads.
        return since >= self.close_ms and (not e.flags & ANSWERED or not e.interest & 4 or self.still_ms(fd, e) >= self.close_ms)

    cdef uint32_t still_ms(self, int fd, Entry* e) except? 0xFFFFFFFF:
        """For how long the peer has taken nothing of what waits for it; 0 where nothing does.

        What leaves our queue is no measure: of a full send buffer of some megabytes the kernel tells only when a
        third is free, for which a slow but honest reader takes minutes. So what is not acknowledged counts, too."""
        cdef Unfinished* more = e.more
        cdef int left = 0
        if more == NULL or more.output.bytes == 0:
            return 0
        ioctl(fd, TIOCOUTQ, &left)
        if left < more.left or self.in_grace:
            more.moved_ms = self.now
        more.left = left
        return self.now - more.moved_ms

    cdef int heartbeat(self, int fd, Entry* e, uint32_t silent) except -1:
        """A Ping after silence, the end after more of it. `seen_ms` is moved when the Ping goes out, so
        that the deadline counts from there."""
        if e.flags & PINGED:
            if e.flags & PAUSED or self.in_grace:
                e.seen_ms = self.now - self.ping_ms
            elif silent >= self.ping_ms + self.pong_ms:
                return self.lose(fd, e, Cause.HEARTBEAT_LOST)
        elif silent >= self.ping_ms - self.early_ms(e):
            e.seen_ms = self.now - self.ping_ms
            e.flags |= PINGED
            if e.more == NULL or e.more.output.bytes == 0:  # else what waits is the question already
                self.begin(fd)  # sent from the cork: a crowd's Pings never wait in memory together
                e.flags |= PONG_DUE
                self.put(fd, e, codec.PING, b"", 0, None, True)
                return self.finish(fd, e)
        return 0

    cdef uint32_t early_ms(self, Entry* e) noexcept:
        """How much too early it is pinged this time (contract.PING_SPREAD): another time, another chance."""
        cdef uint64_t chance = <uint32_t>((e.id ^ e.seen_ms) * 2654435761u)
        return <uint32_t>(chance * (self.ping_ms // PING_SPREAD) >> 32)

    cdef int give_back(self) except -1:
        """After a sweep: memory of rows above the highest in use, of pools, of a crowd that left."""
        cdef int highest = self.highest
        if self.entries > self.peak:
            self.peak = self.entries
        while highest > 0 and self.table[highest].phase == FREE:
            highest -= 1
        if highest < self.highest:
            release_above(self.table, sizeof(Entry), highest, self.highest)
            if self.v6 != NULL:
                release_above(self.v6, 16, highest, self.highest)
            if self.meters != NULL:
                release_above(self.meters, sizeof(Meter), highest, self.highest)
            if self.ranges != NULL:
                release_above(self.ranges, sizeof(Range), highest, self.highest)
            self.highest = highest
        if self.peak >= CROWD and self.entries < self.peak // 2:
            self.peak = self.entries
            self.trim_pool()
            pool_trim()
            if self.dirty_count == 0:
                free(self.dirty)
                self.dirty, self.dirty_room = NULL, 0
            uws_give_back()
        return 0

    # ---- rates

    cdef int start_meter(self, int fd, Py_ssize_t received, Py_ssize_t response) except -1:
        """Of the response, which leaves later and is none of the WebSocket's bytes, nothing is counted."""
        cdef Meter* meter = &self.meters[fd]
        meter.bytes_in, meter.bytes_out = received, -response
        meter.opened_ms = meter.refilled_ms = self.now
        meter.messages, meter.bytes = self.most_messages, self.most_bytes - received
        return 0

    cdef bint charge(self, int fd, Entry* e, double messages, double bytes) except -1:
        """Takes tokens for what came. True: it was more than the rate allows, and the policy has been applied."""
        cdef Meter* meter = &self.meters[fd]
        meter.messages -= messages
        meter.bytes -= bytes
        if meter.messages >= 0 and meter.bytes >= 0:
            return False
        self.refill(meter)
        if meter.messages >= 0 and meter.bytes >= 0:
            return False
        if self.cuts_rates:
            self.close_politely(fd, e, closing.pack_close(1008, "too fast"), 1008, "too fast", Cause.RATE)
        else:
            e.flags |= THROTTLED
        return True

    cdef void refill(self, Meter* meter) noexcept:
        cdef double seconds = <uint32_t>(self.now - meter.refilled_ms) / 1000.0
        meter.refilled_ms = self.now
        meter.messages = min(self.most_messages, meter.messages + seconds * self.messages_per_s)
        meter.bytes = min(self.most_bytes, meter.bytes + seconds * self.bytes_per_s)

    cdef int flood_ebbs(self, int fd, Entry* e) except -1:
        """One that sent too many Pings and Pongs is read on, for the next second's worth of them."""
        e.flags &= ~FLOODING
        if e.phase == OPEN:
            self.make_ready(fd, e)
        return 0

    cdef int let_go_on(self, int fd, Entry* e) except -1:
        """One that was too fast reads on when its tokens are back."""
        cdef Meter* meter = &self.meters[fd]
        self.refill(meter)
        if meter.messages >= 0 and meter.bytes >= 0 or e.phase != OPEN:
            e.flags &= ~THROTTLED
            e.active_ms = self.now  # it was we who did not read
            self.make_ready(fd, e)
        return 0
