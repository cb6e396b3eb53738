"""/metrics, as the parser of the Prometheus project reads it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import Any

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.supervisor.conftest import Run
from tests.supervisor.running import Running, until
from unlimitedws.engine.counters import FIELDS, INDEX, LOOP_LAG, ROW_BYTES
from unlimitedws.supervisor import metrics
from unlimitedws.supervisor.exposition import OPENMETRICS
from unlimitedws.wire.closing import Cause


def parsed(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def row(**values: int) -> memoryview[int]:
    items = memoryview(bytearray(ROW_BYTES)).cast("q")
    for name, value in values.items():
        items[INDEX[name]] = value
    return items


def of_rows(*rows: memoryview[int]) -> dict[str, Metric]:
    return parsed(OPENMETRICS.text(metrics.of_rows(dict(enumerate(rows)))))


def values(family: Metric, suffix: str = "", **labels: str) -> list[Any]:
    wanted = labels.items()
    return [each.value for each in family.samples if each.name == family.name + suffix and wanted <= each.labels.items()]


def test_columns_become_metrics_in_base_units_for_each_slot() -> None:
    found = of_rows(row(connections_open=3, bytes_in=1000, cpu_us=2_500_000, closes_drain=4), row(connections_open=5))
    assert values(found["unlimitedws_connections_open"]) == [3, 5]
    assert values(found["unlimitedws_received_bytes"], "_total") == [1000, 0]
    assert found["unlimitedws_received_bytes"].unit == "bytes"
    assert values(found["unlimitedws_cpu_seconds"], "_total") == [2.5, 0]
    assert values(found["unlimitedws_closes"], "_total", slot="0", cause="drain") == [4]
    assert {each.labels["cause"] for each in found["unlimitedws_closes"].samples} == set(Cause)


def test_every_counter_and_gauge_has_a_metric_whose_name_ends_in_its_unit() -> None:
    found = of_rows(row())
    for field in FIELDS:
        if field.kind in ("counter", "gauge") and not field.family:
            family = found["unlimitedws_" + metrics.family_of(field).name]
            assert (family.type, family.documentation) == (field.kind, field.help)
    for name, family in found.items():
        assert not family.unit or name.endswith("_" + family.unit)
        assert not name.endswith(("_us", "_ns", "_total", "_count"))


def test_buckets_count_up_to_all_of_them() -> None:
    lags = row()
    for lag_us, times in ((500, 3), (3_000, 2), (99_000_000, 1)):
        LOOP_LAG.note(lags, lag_us, times)
    family = of_rows(lags)["unlimitedws_loop_lag_seconds"]
    assert family.type == "histogram"
    assert values(family, "_bucket")[:4] == [3, 3, 5, 5]
    assert (values(family, "_bucket", le="+Inf"), values(family, "_count")) == ([6], [6])
    assert values(family, "_sum") == [99.0075]


def test_the_names_of_all_metrics_differ() -> None:
    names = [name for family in metrics.families() for name in metrics.sample_names(family)]
    assert len(set(names)) == len(names)
    assert all(family.kind in ("counter", "gauge", "histogram", "info") and family.help for family in metrics.families())


# ---- of a whole server


def scraped(server: Running) -> dict[str, Metric]:
    return parsed(server.get("/metrics", accept="application/openmetrics-text")[1])


def total(families: dict[str, Metric], name: str, suffix: str = "_total") -> float:
    return sum(values(families["unlimitedws_" + name], suffix))


def counted(families: dict[str, Metric]) -> dict[tuple[str, Iterable[Any]], float]:
    """Every line of what only grows."""
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in families.values()
        if family.type in ("counter", "histogram")
        for each in family.samples
    }


def test_a_scrape_has_every_metric_that_is_documented(run: Run) -> None:
    server = run(workers=2).ready()
    assert server.echoes()
    until(lambda: total(scraped(server), "closes") == total(scraped(server), "message_handling_seconds", "_count") == 1)
    found = scraped(server)
    assert list(found) == ["unlimitedws_" + family.name for family in metrics.families()]
    assert (total(found, "messages_received"), total(found, "ready", ""), total(found, "worker_ready", "")) == (1, 1, 2)
    assert total(found, "loop_lag_seconds", "_count") > 0
    assert total(found, "resident_memory_bytes", "") > 1 << 20


def test_no_connection_makes_a_series(run: Run) -> None:
    server = run(workers=1).ready()
    before = counted(scraped(server)).keys()
    clients = [server.connect() for _ in range(5)]
    until(lambda: total(scraped(server), "connections_opened") == 5)
    assert counted(scraped(server)).keys() == before
    for client in clients:
        client.close()


def test_counters_do_not_go_back_when_a_worker_dies(run: Run) -> None:
    server = run(workers=1).ready()
    assert server.echoes()
    until(lambda: total(scraped(server), "closes") == 1)
    (worker,) = server.workers()
    before = counted(scraped(server))
    os.kill(worker, signal.SIGKILL)
    server.successors(worker, workers=1)
    after = counted(scraped(server))
    assert after.keys() == before.keys()
    assert [name for name, value in before.items() if after[name] < value] == []
    assert total(scraped(server), "worker_restarts") == 1
