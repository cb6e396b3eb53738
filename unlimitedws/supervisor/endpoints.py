"""What the admin port answers, by path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus

from unlimitedws.config import DEFAULTS, Config
from unlimitedws.supervisor import dashboard
from unlimitedws.supervisor.admin import Answer, Asked, Service, document, not_allowed, text
from unlimitedws.supervisor.connections import Connections
from unlimitedws.supervisor.exposition import format_for
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.history import History
from unlimitedws.supervisor.report import Document, Report

FOR_ALL = ("/metrics", "/healthz", "/readyz")
"""What is answered under any name, as Prometheus and probes ask by those of services: numbers, and of no single client."""


def endpoints(report: Report, history: History, config: Config, sources: Mapping[str, str]) -> dict[str, Callable[[], Answer]]:
    """Path to what makes its answer. sources: where each setting came from."""
    return {
        **dashboard.routes(),
        "/stats": lambda: document(report.document()),
        "/history": lambda: document(history.document()),
        "/history/workers": lambda: document(history.workers.document()),
        "/closes": lambda: document(report.closes()),
        "/config": lambda: document(settings(config, sources)),
        "/healthz": lambda: text(HTTPStatus.OK, "ok"),
        "/readyz": lambda: readiness(report),
    }


def services(report: Report, fleet: Fleet, config: Config) -> dict[str, Service]:
    """Path to what answers for it and for all below it."""
    return {"/metrics": partial(metrics, report), "/connections": Connections(fleet, config.admin_token_file).answer}


async def metrics(report: Report, asked: Asked) -> Answer:
    if asked.rest:
        return text(HTTPStatus.NOT_FOUND, "there is /metrics, and nothing below it")
    if asked.method not in ("GET", "HEAD"):
        return not_allowed("GET, HEAD")
    format = format_for(asked.accept)
    return Answer(HTTPStatus.OK, format.content_type, format.text(report.measured()).encode(), (("Vary", "Accept"),))


def settings(config: Config, sources: Mapping[str, str]) -> Document:
    """Every setting with its value and where that came from. None of them holds a secret: keys and passwords are in files."""
    return {"settings": {name: {"value": getattr(config, name), "from": sources[name]} for name in DEFAULTS}}


def readiness(report: Report) -> Answer:
    """Whether new clients are to be sent here: not before a worker serves, and not once the server is told to stop."""
    if report.is_ready:
        return text(HTTPStatus.OK, "ready")
    if report.fleet.leaving:
        return text(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping")
    return text(HTTPStatus.SERVICE_UNAVAILABLE, "no worker is ready")
