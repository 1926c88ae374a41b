"""The compose file and the Dockerfile agree with the code, without a Docker engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from runtime.settings import Settings, known_variables

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ROLES = {"ingest", "router", "dispatcher", "api"}


def commands() -> dict[str, list[str]]:
    return {
        name: service["command"] for name, service in COMPOSE["services"].items() if service.get("image") == "nightbell:local"
    }


def test_every_variable_of_ours_is_a_setting():
    used = set(re.findall(r"\b(NIGHTBELL_[A-Z_]+)\b", (ROOT / "docker-compose.yml").read_text() + DOCKERFILE))

    assert used <= set(known_variables())


def test_the_settings_of_the_compose_file_are_valid():
    given = COMPOSE["x-nightbell"]["environment"]

    settings = Settings(
        _env_file=None, log_url=given["NIGHTBELL_LOG_URL"], store_url="postgresql://nightbell:p@postgres:5432/nightbell",
        ingest_url="http://127.0.0.1:8080", api_url="http://127.0.0.1:8081",
    )  # fmt: skip

    assert not settings.is_embedded


def test_every_role_runs_once_and_every_command_exists():
    assert {tuple(c) for c in commands().values()} == {("migrate",), *(("serve", role) for role in ROLES)}


@pytest.mark.parametrize("service", sorted(COMPOSE["services"]))
def test_every_dependency_and_volume_is_declared(service):
    entry = COMPOSE["services"][service]

    assert set(entry.get("depends_on", {})) <= set(COMPOSE["services"])
    for volume in entry.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists()
        else:
            assert source in COMPOSE["volumes"]


def test_a_dependency_on_health_is_on_a_service_that_has_a_check():
    for service in COMPOSE["services"].values():
        for name, need in service.get("depends_on", {}).items():
            if need["condition"] == "service_healthy":
                assert "healthcheck" in COMPOSE["services"][name]


def test_published_ports_are_those_that_the_image_exposes():
    exposed = set(re.search(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)[1].split())
    binds = {re.search(rf"{name}=0\.0\.0\.0:(\d+)", DOCKERFILE)[1] for name in ("NIGHTBELL_INGEST_BIND", "NIGHTBELL_API_BIND")}
    published = {port.split(":")[-1] for name in commands() for port in COMPOSE["services"][name].get("ports", [])}

    assert exposed == binds
    assert published == exposed


def test_images_are_pinned_and_the_process_is_not_root():
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    images += [s["image"] for s in COMPOSE["services"].values() if s["image"] != "nightbell:local"]

    assert all(re.search(r":\d+\.\d+|:v\d+\.\d+", image) for image in images)
    assert re.search(r"^USER 10001$", DOCKERFILE, re.MULTILINE)


def test_files_that_the_dockerfile_copies_exist():
    for source in re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, re.MULTILINE):
        assert (ROOT / source).exists()


def test_prometheus_scrapes_the_api_listener_of_every_role():
    scrape = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    targets = {t for job in scrape["scrape_configs"] for config in job["static_configs"] for t in config["targets"]}

    assert targets == {f"{role}:8081" for role in ROLES}
