"""The manifests: Kubernetes' own schemas accept them, they fit each other, and their numbers fit our settings."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.deploy.files import DEPLOY, directives, documents, read
from tests.deploy.test_docker import environment
from unlimitedws.config import DEFAULTS
from unlimitedws.sources import from_environ, load

MANIFESTS = ["deployment.yaml", "service.yaml", "disruption.yaml", "autoscaling.yaml"]
VERSIONS = ["1.31", "1.34"]
"""The oldest that has all of what the manifests say, and a newer one."""


def only(name: str) -> Any:
    (document,) = documents(f"kubernetes/{name}")
    return document


DEPLOYMENT = only("deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
(APP,) = POD["containers"]
(METRICS,) = POD["initContainers"]
LABELS = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]


def patched() -> Any:
    """The deployment with sysctls.yaml, of which it takes the whole list."""
    document = copy.deepcopy(DEPLOYMENT)
    document["spec"]["template"]["spec"]["securityContext"] |= only("sysctls.yaml")["spec"]["template"]["spec"]["securityContext"]
    return document


def variables() -> dict[str, str]:
    """The environment of the app with that of its image; the number of workers as it would be filled in."""
    return environment() | {each["name"]: each.get("value", "2") for each in APP["env"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [*MANIFESTS, "patched"])
def test_the_schemas_accept_it(name: str, version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="needs the schemas: pip install 'unlimitedws[deploy]'")
    validate.validate(patched() if name == "patched" else only(name), version, strict=True)


def test_kustomize_has_all_of_them() -> None:
    whole = only("kustomization.yaml")
    assert whole["resources"] == MANIFESTS
    assert [each["name"] for each in whole["images"]] == [APP["image"]]
    (made,) = whole["configMapGenerator"]
    assert {"name": made["name"]} in [volume.get("configMap") for volume in POD["volumes"]]
    for each in made["files"]:
        name, _, source = each.partition("=")
        assert (DEPLOY / "kubernetes" / source).exists()
        assert name == "haproxy.cfg"
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    assert files == {*MANIFESTS, "kustomization.yaml", "sysctls.yaml", "prometheus-adapter.yaml"}


def test_everything_means_the_same_pods() -> None:
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == LABELS
    assert only("service.yaml")["spec"]["selector"] == LABELS
    assert only("disruption.yaml")["spec"]["selector"]["matchLabels"] == LABELS
    (spread,) = POD["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == LABELS
    for scaled in (only("autoscaling.yaml")["spec"]["scaleTargetRef"], only("sysctls.yaml")["metadata"]):
        assert scaled["name"] == DEPLOYMENT["metadata"]["name"]


def test_probes_ask_the_health_route_of_the_main_port() -> None:
    config, _ = load({}, variables())
    ports = {port["name"]: port["containerPort"] for port in APP["ports"]}
    assert config.health_path
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = APP[kind]["httpGet"]
        assert (asked["path"], ports[asked["port"]]) == (config.health_path, config.port), kind
    (port,) = only("service.yaml")["spec"]["ports"]
    assert ports[port["targetPort"]] == config.port


def test_the_admin_port_stays_on_loopback_and_in_the_pod() -> None:
    config, sources = load({}, variables())
    assert (config.admin_host, sources["admin_host"]) == ("127.0.0.1", "default")
    named = [port["containerPort"] for container in (APP, METRICS) for port in container["ports"]]
    assert DEFAULTS["admin_port"] not in named
    assert "127.0.0.1:9000" in read("kubernetes/metrics.cfg")


def test_a_pod_has_the_time_that_its_stop_may_take() -> None:
    command, pause = APP["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert POD["terminationGracePeriodSeconds"] >= int(pause) + DEFAULTS["stop_timeout_s"] + 10


def test_the_supervisor_replaces_a_hung_worker_before_the_pod_is_restarted() -> None:
    probe = APP["livenessProbe"]
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) > 2 * DEFAULTS["hang_timeout_s"]


def test_variables_that_kubernetes_makes_up_are_kept_out() -> None:
    """Of a Service called unlimitedws, for one: UNLIMITEDWS_PORT=tcp://10.0.0.1:80."""
    assert POD["enableServiceLinks"] is False
    assert set(from_environ(variables())) >= {"workers", "trusted_proxies", "forwarded_header", "health_path"}


def test_no_container_may_more_than_it_must() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["automountServiceAccountToken"] is False
    for container in (APP, METRICS):
        about = container["securityContext"]
        assert (about["allowPrivilegeEscalation"], about["readOnlyRootFilesystem"], about["capabilities"]) == (
            False,
            True,
            {"drop": ["ALL"]},
        )


def test_the_number_of_pods_is_the_autoscalers_alone() -> None:
    assert "replicas" not in DEPLOYMENT["spec"]
    assert only("autoscaling.yaml")["spec"]["minReplicas"] >= 2


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes() -> None:
    (metric,) = (each["pods"]["metric"]["name"] for each in only("autoscaling.yaml")["spec"]["metrics"] if each["type"] == "Pods")
    (rule,) = only("prometheus-adapter.yaml")["rules"]["custom"]
    assert rule["name"]["as"] == metric
    assert f"sum({metric}{{" in rule["metricsQuery"]
    added = {
        relabel.get("target_label")
        for relabel in documents("prometheus/prometheus-kubernetes.yml")[0]["scrape_configs"][0]["relabel_configs"]
    }
    assert set(rule["resources"]["overrides"]) <= added


def test_prometheus_finds_the_port_of_the_metrics_proxy() -> None:
    (job,) = documents("prometheus/prometheus-kubernetes.yml")[0]["scrape_configs"]
    (port,) = METRICS["ports"]
    (keep,) = (relabel["regex"] for relabel in job["relabel_configs"] if relabel.get("action") == "keep")
    assert keep == f"{LABELS['app.kubernetes.io/name']};{port['name']}"
    assert f"bind :{port['containerPort']}" in read("kubernetes/metrics.cfg")


def test_a_pod_has_memory_for_the_connections_that_it_is_scaled_by() -> None:
    """As deployment.yaml reckons: 100,000 idle ones, and a page more for each during a broadcast."""
    connections, slab, page = 100_000, 4096, 4096
    assert connections * slab >> 20 == 390
    assert connections * (slab + page + 48) < (2 << 30) / 2
    (target,) = (
        int(each["pods"]["target"]["averageValue"]) for each in only("autoscaling.yaml")["spec"]["metrics"] if each["type"] == "Pods"
    )
    assert target <= 0.7 * connections


def test_kernel_settings_of_pods_are_those_of_the_files() -> None:
    safe = POD["securityContext"]["sysctls"]
    everything = patched()["spec"]["template"]["spec"]["securityContext"]["sysctls"]
    assert everything[: len(safe)] == safe
    known = directives(read("sysctl.d/80-unlimitedws.conf"))
    for sysctl in everything:
        if sysctl["name"] in known:
            assert known[sysctl["name"]] == [sysctl["value"]]
    assert {"net.core.somaxconn", "net.ipv4.tcp_migrate_req"} <= {sysctl["name"] for sysctl in everything}
