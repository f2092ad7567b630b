"""The picture in docs/architecture.md says which package imports which; the code is held against it."""

import ast
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()
FOLDERS = {"ofa_agent": "agents", "ofa_tables": "tables", "ofa_nas": "ofa", "ofa_profiler": "profiler"}
PICTURE = PAGE.split("```")[1]
ARROWS = {tuple(line.split(" ──► ")) for line in PICTURE.strip().splitlines()}


def imported_by(package):
    found = set()
    for file in (REPOSITORY / FOLDERS[package] / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {name.split(".")[0] for name in names}
    return found & set(FOLDERS) - {package}


def test_imports_are_the_arrows_of_the_picture():
    assert {(package, other) for package in FOLDERS for other in imported_by(package)} == {
        (package, other) for package, others in ARROWS for other in others.split(", ")
    }


def test_every_directory_is_described():
    for package, top in FOLDERS.items():
        for directory in (REPOSITORY / top / package).iterdir():
            if (directory / "__init__.py").exists():
                assert f"`{directory.name}`" in PAGE, directory
