"""Compare the picture in docs/architecture.md with the imports in the code."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()
DIRECTORIES = {"ofa_agent": "agents", "ofa_tables": "tables", "ofa_nas": "ofa", "ofa_profiler": "profiler"}


def folders_of(package: str) -> set[str]:
    root = REPOSITORY / DIRECTORIES[package] / package
    return {path.parent.name for path in root.glob("*/__init__.py")}


def picture() -> dict[str, dict[str, set[str]]]:
    """Read the picture: package → folder → what its arrow points to. The folder "" is the package itself."""
    drawn: dict[str, dict[str, set[str]]] = {}
    for line in PAGE.split("```")[1].splitlines():
        name, _, targets = line.strip("├└─ ").partition(" ──► ")
        if line.startswith("ofa_"):
            package, name = name, ""
        if line:
            drawn.setdefault(package, {})[name] = set(targets.split(", ")) - {""}
    return drawn


def imported_names(file: Path) -> set[str]:
    """Return the absolute names that a file imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the name of the package"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def code(package: str) -> dict[str, set[str]]:
    """Read the imports of a package, in the form of ``picture()[package]``."""
    folders = folders_of(package)
    root = REPOSITORY / DIRECTORIES[package] / package
    imports: dict[str, set[str]] = {folder: set() for folder in {"", *folders}}
    for file in root.rglob("*.py"):
        folder = file.relative_to(root).parts[0]
        for name in imported_names(file):
            first, _, rest = name.partition(".")
            if first in DIRECTORIES and first != package:
                imports[""].add(first)
            if first == package and folder in folders and rest.split(".")[0] in folders - {folder}:
                imports[folder].add(rest.split(".")[0])
    return imports


def test_the_picture_shows_every_package():
    assert set(picture()) == set(DIRECTORIES)


@pytest.mark.parametrize("package", DIRECTORIES)
def test_the_arrows_are_the_imports(package):
    assert picture()[package] == code(package)


@pytest.mark.parametrize("package", DIRECTORIES)
def test_every_folder_is_described(package):
    for folder in folders_of(package):
        assert f"`{folder}`" in PAGE
