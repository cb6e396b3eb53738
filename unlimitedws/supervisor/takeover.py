"""A fleet that outlives its supervisor: packed by the one before an upgrade, adopted by the one after.

Workers and their template notice nothing: the other ends of their channels stay open, and what they say meanwhile waits there.
The template of the old code goes on until a reload has brought the new: if that fails, workers that die are still replaced.
"""

from __future__ import annotations

from functools import partial

from unlimitedws.config import Config
from unlimitedws.engine.counters import INDEX
from unlimitedws.supervisor.channel import Message
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.cpus import usable_cpus
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.process import ORPHAN_END_S
from unlimitedws.supervisor.slot import Slot
from unlimitedws.supervisor.stats_table import COLUMNS, StatsTable


def pack(fleet: Fleet) -> Message:
    """Everything about the fleet, at a moment when nothing is being forked and no slot comes or goes."""
    return {
        "serial": fleet.hatching.serial,
        "reloads": fleet.reloader.count,
        "upgrades": fleet.upgrades,
        "workers": {"setting": fleet.config.workers, "wanted": fleet.scaler.wanted},
        "table": {"inherited": {"table": fleet.table.fd}, "columns": COLUMNS},
        "generation": fleet.generations.current and fleet.generations.current.pack(),
        "children": [child.pack() for child in fleet.children.values() if not child.ended.done()],
        "slots": [packed(slot) for slot in fleet.slots],
        "former": [packed(slot) for slot in fleet.former],
    }


def packed(slot: Slot) -> Message:
    return {
        "number": slot.number,
        "restarts": slot.restarts,
        "current": slot.current and slot.current.order.serial,
        "retired": [child.order.serial for child in slot.retired],
    }


def table_of(left: Message) -> StatsTable:
    """The table of a packed fleet; rows of its children get their numbers in it."""
    used = len(left["slots"]) + len(left["former"])
    table, offset = StatsTable.inherit(left["table"]["inherited"]["table"], left["table"]["columns"], used)
    for child in left["children"]:
        child["order"]["row"] += offset
        if not offset:
            table.claimed.add(child["order"]["row"])
    return table


def adopt(fleet: Fleet, left: Message) -> None:
    """Makes a new fleet, whose table is `table_of(left)`, what the packed one was."""
    fleet.hatching.serial, fleet.reloader.count, fleet.upgrades = left["serial"], left["reloads"], left["upgrades"] + 1
    fleet.former = [Slot(each["number"], [], fleet.config) for each in left["former"]]
    slots = {slot.number: slot for slot in fleet.ever}
    children = {}
    for each in left["children"]:
        slot = slots[each["order"]["slot"]]
        child = children[each["order"]["serial"]] = Child.adopt(each, partial(fleet.draining, slot))
        fleet.follow(slot, child)
        if child.state == "starting":
            child.kill("the supervisor was replaced while it started")
    for each in (*left["slots"], *left["former"]):
        slot = slots[each["number"]]
        slot.restarts, slot.current = each["restarts"], children.get(each["current"])
        slot.retired = {children[serial] for serial in each["retired"] if serial in children}
        for child in slot.retired:
            fleet.succession.see_off(child)
    free_rows(fleet)
    if left["generation"] is not None:
        fleet.generations.adopt(left["generation"])
    else:
        fleet.tasks.start(fleet.generations.renew(0.0))
    fleet.steer()


def workers_wanted(config: Config, left: Message) -> int:
    """How many workers are to serve after the upgrade: as many as before, unless the setting has changed."""
    if config.workers == left["workers"]["setting"]:
        wanted: int = left["workers"]["wanted"]
        return wanted
    return config.workers or usable_cpus()


def free_rows(fleet: Fleet) -> None:
    """Rows of processes that were given up before the upgrade, and are ending by themselves."""
    table = fleet.table
    for row in table.claimed - {child.order.row for child in fleet.children.values()}:
        fleet.loop.call_later(ORPHAN_END_S + 1, table.fold, row, table.row(row)[INDEX["slot"]])
