"""environment.yml, pyproject.toml and constraints.txt name the same packages and versions."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wanted(project):
    lines = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return {canonicalize_name(Requirement(line).name): Requirement(line).specifier for line in lines}


@pytest.fixture(scope="module")
def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text())


@pytest.fixture(scope="module")
def pinned():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line) for line in lines), (
        "one name==version a line"
    )
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_every_requirement_is_pinned_to_a_version_that_it_allows(wanted, pinned):
    for name, specifier in wanted.items():
        assert name in pinned, f"{name} is missing from constraints.txt"
        assert specifier.contains(pinned[name]), f"{name} {specifier} excludes its pin {pinned[name]}"


def test_the_conda_environment_installs_the_same_packages_at_the_pinned_versions(wanted, pinned, environment):
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    options = [line for line in pip if line.startswith("-")]
    packages = dict(line.split("==") for line in pip if not line.startswith("-"))
    assert {canonicalize_name(name): version for name, version in packages.items()} == {
        name: pinned[name] for name in wanted
    }
    assert options == ["-c constraints.txt", "-e ."]


def test_the_conda_environment_has_a_python_that_the_project_allows(project, environment):
    (python,) = (entry for entry in environment["dependencies"] if str(entry).startswith("python="))
    assert SpecifierSet(project["requires-python"]).contains(python.split("=")[1] + ".0")


def test_what_is_installed_here_is_what_is_pinned(wanted, pinned):
    from importlib.metadata import version

    assert {name: version(name).split("+")[0] for name in wanted} == {name: pinned[name] for name in wanted}
