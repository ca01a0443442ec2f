"""The rules of the house that no linter knows."""

import ast
import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "nodes", "dashboard")
SOURCES = sorted(
    path
    for package in PACKAGES
    for path in (HOME / package).rglob("*.py")
    if "migrations" not in path.parts
)
DRAWERS = {"utils", "helpers", "common", "base", "misc", "constants", "tools"}
CONFIGURATION = tomllib.loads((HOME / "pyproject.toml").read_text())

PURE = {
    "orchestrator.lifecycle",
    "orchestrator.spec",
    "orchestrator.scheduling",
    "nodes.protocol",
    "nodes.agent.core",
    "nodes.agent.bidding",
    "dashboard.presenters",
    *(
        f"orchestrator.explain.{path.stem}"
        for path in (HOME / "orchestrator/explain").glob("*.py")
        if path.stem not in {"__init__", "database_errors"}
    ),
}
"""What decides and does not act: the modules with a diamond in the plan of the house."""


def module(path: Path) -> str:
    return ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__")


def exists(name: str) -> bool:
    path = HOME.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def contract(name: str) -> dict:
    contracts = CONFIGURATION["tool"]["importlinter"]["contracts"]
    return next(contract for contract in contracts if contract["id"] == name)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_part_of_a_package_is_named_in_its_readme(package):
    readme = (HOME / package / "README.md").read_text()
    parts = {
        path.stem
        for path in (HOME / package).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    parts -= {"__init__", "migrations", "management"}
    assert {part for part in parts if part not in readme} == set()


def test_the_orchestrator_has_a_dozen_parts_at_most():
    package = HOME / "orchestrator"
    parts = {path.relative_to(package).parts[0] for path in package.rglob("*.py")}
    of_django = {"__init__.py", "admin", "apps.py", "models", "migrations", "management"}
    assert len(parts - of_django) <= 12


HOPS = re.findall(r"`([\w/]+\.py):\s([\w.]+)`", (HOME / "orchestrator/README.md").read_text())


@pytest.mark.parametrize("hop", HOPS, ids=": ".join)
def test_a_hop_of_the_walk_is_there(hop):
    file, name = hop
    path = next(it for it in (HOME / "orchestrator" / file, HOME / file) if it.exists())
    defined = ast.parse(path.read_text()).body
    for part in name.split("."):
        (found,) = [it for it in defined if getattr(it, "name", "") == part]
        defined = found.body


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_a_module_is_a_noun_not_a_drawer(path):
    assert path.stem not in DRAWERS


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_a_module_says_first_what_it_is(path):
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_a_long_file_wants_a_second_noun(path):
    assert len(path.read_text().splitlines()) <= 400


def test_every_pure_module_is_kept_pure_by_its_contract():
    assert {name for name in PURE if exists(name)} <= set(contract("pure")["source_modules"])


def test_the_wheel_of_the_agent_has_every_module_of_it():
    wheel = tomllib.loads((HOME / "nodes/agent/pyproject.toml").read_text())
    packed = wheel["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {path.name for path in (HOME / "nodes/agent").glob("*.py")} <= packed.keys()


@pytest.mark.parametrize("name", sorted(it.stem for it in (HOME / "benchmarks").glob("[a-z]*.py")))
def test_a_benchmark_knows_what_it_measures(name):
    """Nothing but an hour's run would tell that a name of the product has changed."""
    importlib.import_module(f"benchmarks.{name}")


def test_everything_is_typed_strictly():
    assert CONFIGURATION["tool"]["mypy"]["strict"] is True


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_no_signals_of_our_own_and_no_rules_hidden_in_save(path):
    tree = ast.parse(path.read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert "save" not in defined
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not {name for name in called if name in {"Signal", "receiver"}}


def test_a_worker_is_never_a_machine():
    """The one word that means two things elsewhere."""
    for path in (HOME / "nodes").rglob("*.py"):
        assert not re.search(r"\bclass \w*Worker", path.read_text()), path


def test_locks_pin_by_hash_and_name_no_registry():
    for lock in HOME.glob("requirements*.lock"):
        text = lock.read_text()
        assert "://" not in text, lock
        assert "--hash=sha256:" in text, lock


def test_no_path_of_a_machine_is_in_the_tree():
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=HOME, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    for name in filter(None, tracked):
        path = HOME / name
        if path.suffix in {".py", ".md", ".toml", ".html", ".js", ".css", ".yaml", ".in"}:
            found = re.search(r"(?<![\w.])/(root|home/\w+|work)/\w", path.read_text())
            assert not found, f"{name}: {found}"


def test_the_change_log_names_the_version():
    version = CONFIGURATION["project"]["version"]
    assert f"## {version}" in (HOME / "CHANGELOG.md").read_text()


def test_the_readme_names_only_targets_that_exist():
    targets = set(re.findall(r"^([a-z]+):", (HOME / "Makefile").read_text(), re.MULTILINE))
    assert (
        set(re.findall(r"(?:^|`)make ([a-z]+)", (HOME / "README.md").read_text(), re.MULTILINE))
        <= targets
    )


def test_links_in_the_manual_lead_somewhere():
    for page in (HOME / "README.md", *(HOME / "docs").rglob("*.md")):
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.relative_to(HOME)} links to {link}"
