"""What the admin port answers, by path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from unlimitedws.config import DEFAULTS, Config
from unlimitedws.supervisor import dashboard
from unlimitedws.supervisor.admin import Answer, Service, document, text
from unlimitedws.supervisor.connections import Connections
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.history import History
from unlimitedws.supervisor.metrics import CONTENT_TYPE, exposition
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
        "/metrics": lambda: metrics(report),
        "/closes": lambda: document(report.closes()),
        "/config": lambda: document(settings(config, sources)),
        "/healthz": lambda: text(HTTPStatus.OK, "ok"),
        "/readyz": lambda: readiness(report),
    }


def services(fleet: Fleet, config: Config) -> dict[str, Service]:
    """Path to what answers for it and for all below it."""
    return {"/connections": Connections(fleet, config.admin_token_file).answer}


def metrics(report: Report) -> Answer:
    return Answer(HTTPStatus.OK, CONTENT_TYPE, exposition(report.measured()).encode())


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
