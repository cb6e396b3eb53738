"""The supervisor: the sequence of a server's life, and the signals that drive it.

    bind every listener, raise limits      errors here end it before anything is forked
    open control socket and admin port     so that a start can be watched
    start the fleet                        an app that cannot start ends it with exit code 3
    wait                                   SIGTERM, SIGINT: stop (see departure.py); again: at once; SIGHUP: reload;
                                           SIGTTIN, SIGTTOU: one worker more, or fewer (see scaling.py);
                                           SIGUSR2: this program is replaced, and everything above taken over (see upgrade.py)
    stop the fleet                         no process of ours is left

It runs on the standard library's loop, in one thread: only a single-threaded process forks safely.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import platform
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from unlimitedws import engine, importing, logs, requirements
from unlimitedws.config import Config, adapt
from unlimitedws.errors import UnlimitedwsError
from unlimitedws.hostnames import Hostnames
from unlimitedws.listener import Bindable, name_of, wanted
from unlimitedws.place import Tcp
from unlimitedws.socketfile import UnixListener
from unlimitedws.sources import traced
from unlimitedws.supervisor import takeover
from unlimitedws.supervisor.admin import Admin
from unlimitedws.supervisor.checkup import check_up
from unlimitedws.supervisor.control import Control, listen_for_control
from unlimitedws.supervisor.cpus import usable_cpus
from unlimitedws.supervisor.departure import depart
from unlimitedws.supervisor.descriptors import check_limit, hold_standard, open_descriptors, raise_limit
from unlimitedws.supervisor.endpoints import FOR_ALL, endpoints, services
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.given import Given
from unlimitedws.supervisor.history import History
from unlimitedws.supervisor.inheritance import Inheritance
from unlimitedws.supervisor.listeners import Before, Listeners, listen_for_admin, listen_for_slots
from unlimitedws.supervisor.notify import Notifier
from unlimitedws.supervisor.progress import Progress
from unlimitedws.supervisor.reaper import Reaper, become_subreaper, children
from unlimitedws.supervisor.rehearsal import import_all, rehearse
from unlimitedws.supervisor.renewal import Renewal
from unlimitedws.supervisor.report import Report
from unlimitedws.supervisor.sampler import EVERY_S, Sampler
from unlimitedws.supervisor.stored import Kept, KeptFile
from unlimitedws.supervisor.tasks import Tasks
from unlimitedws.supervisor.upgrade import Upgrader
from unlimitedws.supervisor.verbs import Verbs
from unlimitedws.supervisor.watchdog import Watchdog
from unlimitedws.supervisor.watcher import SourceWatcher

log = logging.getLogger("unlimitedws.supervisor")

SIGNALS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU
)  # fmt: skip


class Supervisor:
    """Serves an app with several worker processes.

        Supervisor("app:handlers", port=8000).run()
        Supervisor(handlers, workers=4).run()  # from a launcher script

    app: Handlers, a mapping of paths to Handlers, or "module:attribute". Only in the last form can a reload get
    fresh code: it is imported in a process of its own, once for each reload.
    config, settings: a Config, or its fields as keywords; keywords win.  sources: where the values of `config` came
    from, for /config. Raises BadValue, UnknownSetting."""

    def __init__(self, app: Given, config: Config | None = None, *, sources: Mapping[str, str] | None = None, **settings: Any) -> None:
        self.app = app
        self.config = adapt(config, settings)
        self.sources = traced(self.config, sources or {}, settings)
        self.crash: BaseException | None = None

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT. Blocks; from the main thread, outside of any event loop.

        Raises ListenError, AppError (exit code 3), EngineUnavailable, TooFewFiles, PlatformUnsupported; nothing is left running then.
        Where the program has not set up logging, it is set up here: lines on stderr. An upgrade starts the whole program again
        up to here, which takes the running server over (UpgradeError: it cannot), and before that another time for a
        check, which ends here."""
        requirements.check()
        check_caller()
        hold_standard()
        before = Inheritance.take(os.environ)
        logs.set_up(self.config)
        slots = len(before["fleet"]["slots"]) if before else self.config.workers or usable_cpus()
        limit = raise_limit()
        kept = frozenset(open_descriptors())
        check_certificates(self.config)
        if before is None:  # in an upgrade workers wait for their supervisor
            check_limit(limit, slots, sum(isinstance(place, Tcp) for place in wanted(self.config)))
            check_up(self.config, usable_cpus())
        elif before.is_check:
            self.pass_check(before)
        with contextlib.ExitStack() as stack:
            notifier = Notifier.of(os.environ)
            found = None if before is None else Before(before["listeners"])
            listeners = listen_for_slots(self.config, slots, notifier, found)
            stack.callback(listeners.close)
            admin_listener = listen_for_admin(self.config, found.admin if found else None)
            if admin_listener is not None:
                stack.callback(admin_listener.close)
            control_listener = listen_for_control(self.config, listeners.port, found.control if found else None)
            if control_listener is not None:
                stack.callback(control_listener.close)
            kept -= listeners.descriptors  # systemd's were open before
            kept -= before.descriptors if before else frozenset()
            rehearse(self.config)
            stack.callback(gc.unfreeze)  # the program's own objects, frozen by our forks
            stack.enter_context(signals_restored())
            become_subreaper()
            runner = stack.enter_context(asyncio.Runner(loop_factory=asyncio.SelectorEventLoop))
            runner.run(self.serve(listeners, admin_listener, control_listener, kept, notifier, before))
        if self.crash is not None:
            raise self.crash

    def pass_check(self, before: Inheritance) -> NoReturn:
        """Ends the check before an upgrade. Raises what this program would fail with."""
        import h11  # noqa: F401  # what is imported late, and would be missed late
        import psutil  # noqa: F401

        from unlimitedws import __version__

        import_all()
        engine.load(self.config.engine)
        Before(before["listeners"]).check(self.config)
        before.answer(version=__version__, python=platform.python_version())

    async def serve(
        self, listeners: Listeners, admin_listener: socket.socket | None, control_listener: UnixListener | None,
        kept: frozenset[int], notifier: Notifier, before: Inheritance | None,
    ) -> None:  # fmt: skip
        from unlimitedws import __version__

        table = None if before is None else takeover.table_of(before["fleet"])
        fleet = Fleet(self.app, self.config, listeners, kept=kept, failed=self.failed, notifier=notifier, table=table)
        self.fleet, self.notifier = fleet, notifier
        self.admin_listener, self.control_listener = admin_listener, control_listener
        self.tasks = tasks = Tasks(self.failed)
        self.report = report = Report(fleet, Sampler(), version=__version__)
        self.history = History(report, EVERY_S)
        self.upgrader = Upgrader(fleet, self.pack, SIGNALS)
        self.reaper = Reaper(self.reaped, before["ours"] if before else ())
        if before is not None:
            takeover.adopt(fleet, before["fleet"])
            report.resume(before["report"])
            self.history.resume(before["history"])
        self.take_signals()
        if before is not None:
            before.unblock_signals()
            self.reaper.reap()
        tasks.start(fleet.go_on_advising())
        tasks.start(notifier.go_on_living())
        admin: Admin | None = None
        control: Control | None = None
        stopped = fleet.loop.create_future()
        try:
            if control_listener is not None:
                control = await self.open_control(control_listener, Verbs(fleet, report, self.upgrader, stop=self.stop, stopped=stopped))
            if admin_listener is not None:
                admin = await self.open_admin(admin_listener)
            if before is None:
                await fleet.start()
            else:
                workers = len(fleet.children)
                log.info("upgraded from %s; %d worker%s", before, workers, " goes on" if workers == 1 else "s go on")
                fleet.resume(takeover.workers_wanted(self.config, before["fleet"]))
            if not fleet.leaving:
                self.watch(report)
                self.announce(is_new=before is None)  # after the first look at source files: whoever reads it may change them
            await fleet.stopping.wait()
        finally:
            notifier.stopping()
            await fleet.stop()
            stopped.set_result(None)
            if control is not None:
                await control.close()
            if admin is not None:
                await admin.close()
            log.info("stopped")

    def failed(self, error: BaseException) -> None:
        """A defect of ours: better no server than one that is not watched."""
        log.critical("the supervisor failed; stopping", exc_info=error)
        self.crash = self.crash or error
        self.fleet.begin_stop()

    def pack(self) -> dict[str, Any]:
        """What the program after an upgrade is left."""
        sock, control = self.admin_listener, self.control_listener
        admin = None if sock is None else Kept(sock.fileno(), Bindable.of(sock), any_port=not self.config.admin_port)
        return {
            "ours": sorted(children() or ()),
            "report": self.report.pack(),
            "history": self.history.pack(),
            "listeners": self.fleet.listeners.pack(admin, KeptFile.of(control) if control else None),
            "fleet": takeover.pack(self.fleet),
        }

    def reaped(self, pid: int, status: int) -> None:
        self.upgrader.reaped(pid, status)
        self.fleet.reaped(pid, status)

    def announce(self, *, is_new: bool) -> None:
        generation = self.fleet.generations.current
        engine = generation.engine if generation else "unknown"
        why = generation.why_not_native if generation else None
        if why is not None and self.config.engine == "auto":
            engine += f" (native is not available: {why})"
        workers = len(self.fleet.slots)
        log.info("listening on %s with %d worker%s, engine %s", self.fleet.listeners, workers, "" if workers == 1 else "s", engine)
        if is_new:  # after an upgrade: when the workers are new, too
            self.notifier.ready()

    def watch(self, report: Report) -> None:
        Watchdog(self.fleet, self.config.hang_timeout_s).start()
        self.tasks.start(Progress(self.fleet, self.notifier).go_on_telling())
        renewal = Renewal(self.fleet, report, self.config)
        if renewal.is_needed:
            self.tasks.start(renewal.go_on_looking())
        if not self.config.reload:
            return
        if isinstance(self.app, str):
            self.tasks.start(SourceWatcher(Path.cwd(), lambda: self.fleet.generations.files, self.fleet.reload).watch())
        else:
            log.warning("reload needs the app as 'module:attribute'; this one was imported by the program itself")

    async def open_admin(self, listener: socket.socket) -> Admin:
        admin = Admin(
            endpoints(self.report, self.history, self.config, self.sources), services(self.report, self.fleet, self.config),
            names=Hostnames(self.config.admin_names, self.config.admin_host), for_all=FOR_ALL,
        )  # fmt: skip
        await admin.serve(listener)
        self.tasks.start(look_now_and_then(self.history))
        log.info("dashboard and stats on http://%s/", name_of(listener))
        return admin

    async def open_control(self, listener: UnixListener, verbs: Verbs) -> Control:
        control = Control(verbs.table())
        await control.serve(listener.sock)
        log.info("`unlimitedws ctl` on %s", listener.path)
        return control

    def take_signals(self) -> None:
        loop, fleet = self.fleet.loop, self.fleet
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.told_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, fleet.reload)
        loop.add_signal_handler(signal.SIGUSR2, self.told_to_upgrade)
        loop.add_signal_handler(signal.SIGTTIN, self.told_to_scale, signal.SIGTTIN, +1)
        loop.add_signal_handler(signal.SIGTTOU, self.told_to_scale, signal.SIGTTOU, -1)
        loop.add_signal_handler(signal.SIGCHLD, self.reaper.reap)

    def told_to_scale(self, number: signal.Signals, more: int) -> None:
        scaler = self.fleet.scaler
        if not self.fleet.was_ready or self.fleet.leaving:
            log.warning("%s: not while the server starts or stops", number.name)
        elif not 1 <= scaler.wanted + more <= scaler.most:
            log.warning("%s: %d is the %s number of workers", number.name, scaler.wanted, "least" if more < 0 else "largest")
        else:
            log.info("%s: from %d to %d workers", number.name, scaler.wanted, scaler.wanted + more)
            scaler.ask(scaler.wanted + more)

    def told_to_stop(self, number: signal.Signals) -> None:
        if self.fleet.leaving:
            log.warning("%s again: stopping at once", number.name)
            self.fleet.cut()
        else:
            log.info("%s: stopping; again to stop at once", number.name)
            self.stop()

    def stop(self) -> None:
        """Begins a polite stop: see departure.py."""
        self.fleet.leave()
        self.notifier.stopping()
        self.tasks.start(depart(self.fleet, self.config.drain_delay_s))

    def told_to_upgrade(self) -> None:
        log.info("SIGUSR2: upgrading")
        self.upgrader.begin()


def check_caller() -> None:
    importing.check("Supervisor.run()")
    if threading.current_thread() is not threading.main_thread():
        raise UnlimitedwsError("Supervisor.run() handles signals: call it from the main thread")
    if asyncio._get_running_loop() is not None:
        raise UnlimitedwsError("Supervisor.run() has a loop of its own: call it outside of a running loop, or use Server")


def check_certificates(config: Config) -> None:
    """Raises BadCertificate before anything is forked, and tells of old ones; the workers read the files by themselves."""
    if config.certfile:
        from unlimitedws.tls import Certificates

        Certificates(config).tell_expired()


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    """Afterwards the program's signal handlers are what they were."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: a handler that is not Python's, and that we cannot put back
                signal.signal(number, handler)


async def look_now_and_then(history: History) -> None:
    while True:
        history.look()
        await asyncio.sleep(EVERY_S)
