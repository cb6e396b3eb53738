"""How /metrics is written: in OpenMetrics text for who asks for it, as Prometheus does; else in the older text format of Prometheus,
which everybody reads.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    https://github.com/OpenObservability/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md

The names of all lines are the same in both. OpenMetrics says type and help of a counter or info under the name without its
suffix, and the unit, and where the text ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from unlimitedws.supervisor.metrics import PREFIX, Family, Sample

OPENMETRICS_TYPE = "application/openmetrics-text"
PLAIN_TYPE = "text/plain"


class Format(NamedTuple):
    """content_type: with its version.  heading: the lines before those of a metric.  end: the last line."""

    content_type: str
    heading: Callable[[Family], str]
    end: str

    def text(self, measured: Iterable[tuple[Family, Sequence[Sample]]]) -> str:
        """All these metrics."""
        return "".join(part for family, samples in measured for part in (self.heading(family), *lines(family, samples))) + self.end


def lines(family: Family, samples: Iterable[Sample]) -> Iterator[str]:
    name = PREFIX + family.name
    for suffix, labels, value in samples:
        shown = ",".join(f'{label}="{quoted(str(text))}"' for label, text in labels.items())
        yield f"{name}{suffix}{{{shown}}} {value!r}\n" if shown else f"{name}{suffix} {value!r}\n"


def openmetrics_heading(family: Family) -> str:
    name = PREFIX + family.name
    unit = f"# UNIT {name} {family.unit}\n" if family.unit else ""
    return f"# TYPE {name} {family.kind}\n{unit}# HELP {name} {quoted(family.help)}\n"


def plain_heading(family: Family) -> str:
    suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
    kind = "gauge" if family.kind == "info" else family.kind  # there is no such type
    name = PREFIX + family.name + suffix
    return f"# HELP {name} {escaped(family.help)}\n# TYPE {name} {kind}\n"


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def quoted(text: str) -> str:
    """As label values want it, and help in OpenMetrics (section "ABNF": escaped-string)."""
    return escaped(text).replace('"', '\\"')


OPENMETRICS = Format(f"{OPENMETRICS_TYPE}; version=1.0.0; charset=utf-8", openmetrics_heading, "# EOF\n")
PLAIN = Format(f"{PLAIN_TYPE}; version=0.0.4; charset=utf-8", plain_heading, "")


def format_for(accept: str) -> Format:
    """The one that the client likes best. accept: its header, perhaps empty; where it names neither, everybody reads the plain one."""
    liked = {OPENMETRICS_TYPE: 0.0, PLAIN_TYPE: 0.0}
    for item in accept.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        about = dict(parameter.partition("=")[::2] for parameter in parameters)
        is_ours = name == PLAIN_TYPE or (name == OPENMETRICS_TYPE and about.get("version", "1.0.0") == "1.0.0")
        if is_ours:
            liked[name] = max(liked[name], quality(about.get("q", "1")))
    return OPENMETRICS if liked[OPENMETRICS_TYPE] and liked[OPENMETRICS_TYPE] >= liked[PLAIN_TYPE] else PLAIN


def quality(text: str) -> float:
    """RFC 9110, section 12.4.2: 0 to 1."""
    try:
        return float(text)
    except ValueError:
        return 0.0
