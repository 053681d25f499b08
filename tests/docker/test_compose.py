"""The compose files keep to the schema, to the settings, and to what keeps a service safe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from shortft_core.settings import Settings
from store.settings import StoreSettings
from tests.docker import compose, settings_table
from worker.settings import WorkerSettings

SCHEMA: Final = Path(__file__).parent / "schema" / "compose-spec.json"
CLASSES: Final[tuple[type[BaseSettings], ...]] = (
    ApiSettings, Settings, StoreSettings, WorkerSettings,
)  # fmt: skip
SETTINGS: Final = {
    f"SHORTFT_{name.upper()}" for settings in CLASSES for name in settings.model_fields
}
LONG_LIVED: Final = ("postgres", "redis", *compose.OWN[2:])
WORKERS: Final = compose.OWN[3:]
SETTING: Final = re.compile(r"\bSHORTFT_\w+")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return compose.services()


@pytest.mark.parametrize("path", [compose.BASE, compose.OVERRIDE], ids=lambda path: path.name)
def test_the_official_schema_accepts_it(path: Path) -> None:
    validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert [error.message for error in validator.iter_errors(compose.load(path))] == []


def test_the_schema_would_refuse_a_mistyped_key() -> None:
    validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text(encoding="utf-8")))
    wrong = compose.load()
    wrong["services"]["api"]["stop_grace_periode"] = "30s"
    assert not validator.is_valid(wrong)


@pytest.mark.parametrize(
    "path", [compose.BASE, compose.ROOT / ".env.example"], ids=lambda path: path.name
)
def test_every_setting_exists(path: Path) -> None:
    named = set(SETTING.findall(path.read_text(encoding="utf-8")))
    assert len(named) > 4
    assert named <= SETTINGS


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("api", (ApiSettings, StoreSettings)),
        *((worker, (Settings, StoreSettings, WorkerSettings)) for worker in WORKERS),
    ],
)
def test_every_setting_reaches_its_service(
    services: dict[str, Any], name: str, classes: tuple[type[BaseSettings], ...]
) -> None:
    given = {setting.removesuffix("_FILE") for setting in services[name]["environment"]}
    wanted = {
        settings_table.variable(field_name, field).removesuffix("_FILE")
        for settings in classes
        for field_name, field in settings.model_fields.items()
    }
    beside = {"HF_HUB_CACHE"} if name == "api" else {"SHORTFT_SECRET_KEY"}
    assert wanted - given == beside


def test_the_example_names_every_variable() -> None:
    example = (compose.ROOT / ".env.example").read_text(encoding="utf-8")
    offered = set(re.findall(r"^# (\w+)=", example, re.MULTILINE))
    files = (compose.BASE, compose.OVERRIDE)
    used = {name for path in files for name in compose.variables(path.read_text(encoding="utf-8"))}
    assert offered == {*used, "COMPOSE_FILE"}


def test_it_works_bare(services: dict[str, Any]) -> None:
    assert "${" not in json.dumps(services)  # every variable has a default
    assert [name for name, service in services.items() if "profiles" in service] == []


def test_only_the_api_is_published_and_only_on_this_machine(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000:8000"]}


def test_database_and_redis_cannot_reach_out(services: dict[str, Any]) -> None:
    assert compose.load()["networks"]["inside"] == {"internal": True}
    for name in ("postgres", "redis", "migrate"):
        assert services[name]["networks"] == ["inside"], name
    assert services["init"]["network_mode"] == "none"


def test_no_secret_is_written_down(services: dict[str, Any]) -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|KEY")
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if secret.search(variable) and not variable.endswith("_FILE"):
                assert not value, f"{name}: {variable}"


def test_secrets_are_where_they_are_needed_only(services: dict[str, Any]) -> None:
    secrets = [name for name in compose.load()["volumes"] if name.endswith("-secrets")]
    mounted = {name: set(compose.targets(service).values()) for name, service in services.items()}
    holders = {secret: {name for name in mounted if secret in mounted[name]} for secret in secrets}
    assert holders == {
        "admin-secrets": {"migrate"},
        "api-secrets": {"init", "migrate", "api"},
        "shared-secrets": {"init", "migrate", "api", *WORKERS},
        "postgres-secrets": {"init", "postgres"},
        "redis-secrets": {"init", "redis"},
    }


@pytest.mark.parametrize("name", compose.OWN)
def test_own_containers_can_do_little(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service["pull_policy"] == "build"
    assert "user" not in service  # the image says it, and it is not root


def test_every_volume_is_declared_and_used(services: dict[str, Any]) -> None:
    used = {volume for service in services.values() for volume in compose.targets(service).values()}
    assert used == set(compose.load()["volumes"])


@pytest.mark.parametrize("name", LONG_LIVED)
def test_what_runs_for_long_is_watched(services: dict[str, Any], name: str) -> None:
    assert services[name]["restart"] == "unless-stopped"
    test = services[name]["healthcheck"]["test"]
    assert test[0] == "CMD"
    assert len(test) > 1


@pytest.mark.parametrize("name", ["init", "migrate"])
def test_what_runs_once_is_not_restarted(services: dict[str, Any], name: str) -> None:
    assert services[name]["restart"] == "no"
    waiting = [
        service["depends_on"][name]["condition"]
        for service in services.values()
        if name in service.get("depends_on", {})
    ]
    assert set(waiting) == {"service_completed_successfully"}


@pytest.mark.parametrize("name", WORKERS)
def test_workers_have_time_to_save(services: dict[str, Any], name: str) -> None:
    seconds = int(services[name]["stop_grace_period"].removesuffix("s"))
    assert seconds >= 2 * WorkerSettings.model_fields["grace_seconds"].default


def test_every_queue_has_a_worker(services: dict[str, Any]) -> None:
    from store.broker import Queue

    kinds = {tuple(services[name]["command"][:4]) for name in WORKERS}
    assert kinds == {("python", "-m", "worker", kind.value) for kind in Queue}
    for name in WORKERS:
        health = services[name]["healthcheck"]["test"]
        assert health == ["CMD", "python", "-m", "worker.health", services[name]["command"][3]]


def test_redis_loses_at_most_a_second_and_refuses_when_full(services: dict[str, Any]) -> None:
    words = services["redis"]["command"]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert words[:2] == ["redis-server", "-"]
    assert options == {
        "--dir": "/data",
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
    }


def test_images_of_others_have_a_major_version(services: dict[str, Any]) -> None:
    assert {services[name]["image"] for name in ("postgres", "redis")} == {"postgres:18", "redis:8"}


def test_the_override_only_adds_gpus() -> None:
    override = compose.load(compose.OVERRIDE)["services"]
    device = {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    reserved = {
        "environment": {"SHORTFT_DEVICE": "auto"},
        "deploy": {"resources": {"reservations": {"devices": [device]}}},
    }
    assert override == {"worker-train": reserved, "worker-generate": reserved}


@pytest.mark.parametrize("name", WORKERS)
def test_the_base_file_computes_on_the_cpu(services: dict[str, Any], name: str) -> None:
    assert services[name]["environment"]["SHORTFT_DEVICE"] == "cpu"
    assert "deploy" not in services[name]


def test_commands_are_exec_form_and_start(services: dict[str, Any]) -> None:
    commands = {name: services[name]["command"] for name in compose.OWN}
    assert {tuple(command[:2]) for command in commands.values()} == {("python", "-m")}
    # Several services run the same module: it is started once.
    for module in sorted({command[2] for command in commands.values()}):
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"],
            capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, f"{module}: {done.stderr}"
        assert "Usage" in done.stdout or "usage" in done.stdout


def test_ignored_files_stay_out_of_the_images() -> None:
    lines = (compose.ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert all((compose.ROOT / name).exists() for name in allowed)
    project = tomllib.loads((compose.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {package.rstrip("*") for package in packages} <= allowed
