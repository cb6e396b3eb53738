"""What the running server's /metrics prints, and what expressions over it ask for."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.supervisor.running import Running

NAME = re.compile(r"\bunlimitedws_[a-z0-9_]+")
SAMPLE = re.compile(r"(?P<name>[a-z0-9_]+)(?:\{(?P<labels>.*)\})? \S+")
LABEL = re.compile(r'([a-z_]+)="')
MATCHER = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"')
GROUPED = re.compile(r"\bby \(([^)]*)\)")

OF_TARGETS = {"job", "instance", "namespace", "pod"}
"""Labels that Prometheus adds, as deploy/prometheus has it do."""


class Exposed(NamedTuple):
    """names: of all samples there are or may be.  labels: that any of them has."""

    names: set[str]
    labels: set[str]


def exposed(server: Running) -> Exposed:
    status, text = server.get("/metrics")
    assert status == 200, text
    names, labels = set(), set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            names |= {name} if kind == "gauge" else set()  # even where no sample is there at the moment
        elif not line.startswith("#") and (found := SAMPLE.match(line)):
            names.add(found["name"])
            labels |= set(LABEL.findall(found["labels"] or ""))
    assert names
    return Exposed(names, labels)


def check(expression: str, there: Exposed) -> None:
    """An expression asks for nothing that is not there."""
    unknown = set(NAME.findall(expression)) - there.names
    assert not unknown, f"/metrics has no {', '.join(sorted(unknown))}: {expression}"
    asked = set(MATCHER.findall(expression)) | {name.strip() for names in GROUPED.findall(expression) for name in names.split(",")}
    unknown = asked - there.labels - OF_TARGETS
    assert not unknown, f"/metrics has no label {', '.join(sorted(unknown))}: {expression}"
