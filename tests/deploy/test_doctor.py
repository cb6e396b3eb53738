"""The files of deploy/ and `unlimitedws doctor` say the same of a machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.files import MANUAL, directives, documents, read, seconds
from tests.deploy.test_kernel import CONNECTIONS, HOLDING, MACHINE_BYTES, SLAB_BYTES, TABLE_BYTES, booted_with, values
from tests.doctor.conftest import judged
from tests.doctor.trees import BOOTED_WITH, CONNTRACK, build, limits, plain
from unlimitedws import cost
from unlimitedws.config import Config
from unlimitedws.doctor.problems import PROXIES
from unlimitedws.doctor.sysctls import OF_A_CONTAINER

UNIT = directives(read("systemd/unlimitedws.service"))


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The machine of the files' bill, with a firewall, as its distribution set it up."""
    return build(plain(tmp_path, memory=MACHINE_BYTES), {}, CONNTRACK)


def test_with_the_files_of_deploy_a_million_fit_and_nothing_is_to_be_changed(machine: Path) -> None:
    given = {key.removeprefix("-"): value for key, (value,) in directives(read(HOLDING)).items()}
    given |= {BOOTED_WITH[name]: str(value) for name, value in booted_with().items()}
    build(machine, {"proc/self/limits": limits(hard=int(UNIT["LimitNOFILE"][0]))}, given)
    verdict = judged(machine, Config(), CONNECTIONS)
    assert verdict.is_enough
    assert [bound for bound in verdict.bounds if bound.connections < CONNECTIONS] == []
    assert (verdict.problems, verdict.changes) == ([], [])


@pytest.mark.parametrize("wanted", [100_000, 300_000, 1_000_000])
@pytest.mark.parametrize("hard", [1024, 524288])
def test_what_is_advised_for_up_to_a_million_the_files_have_at_least(machine: Path, wanted: int, hard: int) -> None:
    build(machine, {"proc/self/limits": limits(hard=hard)}, {"net.core.somaxconn": "128"})
    here, changes = values(HOLDING), judged(machine, Config(), wanted).changes
    for change in changes:
        if change.kind == "sysctl":
            assert all(mine >= int(other) for mine, other in zip(here[change.key], change.value.split(), strict=True)), change
        elif change.kind == "boot":
            assert booted_with()[change.key] >= int(change.value)
        elif change.kind == "open_files":
            assert int(change.value) <= int(UNIT["LimitNOFILE"][0])
    assert {change.kind for change in changes} <= {"sysctl", "boot", "open_files", "setting"}


def test_the_bill_is_the_same() -> None:
    assert (cost.KERNEL_BYTES, cost.ROW_BYTES["native"]) == (SLAB_BYTES, TABLE_BYTES)


def test_containers_are_given_what_is_a_containers() -> None:
    (compose,) = documents("docker/compose.yaml")
    (patch,) = documents("kubernetes/sysctls.yaml")
    pod = {each["name"] for each in patch["spec"]["template"]["spec"]["securityContext"]["sysctls"]}
    assert {*compose["services"]["app"]["sysctls"], *pod} <= OF_A_CONTAINER


def test_the_patience_of_proxies_is_what_the_manual_says() -> None:
    rows = dict(re.findall(r"^\| (nginx|Envoy) \| `\w+` \| ([\d.]+ s) \|", MANUAL.read_text(), re.MULTILINE))
    assert len(rows) == 2
    for name, idle_s in PROXIES:
        if name.split()[0] in rows:
            assert seconds(rows[name.split()[0]].replace(" ", "")) == idle_s
