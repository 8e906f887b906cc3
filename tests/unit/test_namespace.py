"""The product is imported as `meterline.*` and in no other way."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINKS = ROOT / "src" / "meterline"
# Has a program inside that has modules of our folders' names, on purpose.
HAS_A_PROGRAM = "tests/thin_relay.py"


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository, new ones among them, links left out."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    paths = (ROOT / name for name in listed)
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def folders() -> set[str]:
    """The packages of the product: top-level folders with a module in them, the tools' left out."""
    holders = {path.relative_to(ROOT).parts[0] for path in tracked("*/__init__.py")}
    return holders - {"src", "tests", "benchmarks"}


def imports(tree: ast.Module) -> Iterator[str]:
    """The dotted names that a module imports, those of a call of `import_module` among them."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name
            case ast.Call(func=called, args=[ast.Constant(value=str(name)), *_]):
                if ast.unparse(called).endswith(("import_module", "find_spec", "__import__")):
                    yield name
            case _:
                pass


def test_each_folder_has_one_link_and_each_link_a_folder() -> None:
    """`src/meterline` holds a relative link per package, and no other."""
    links = {path.name: path.readlink() for path in LINKS.iterdir() if path.is_symlink()}
    assert set(links) == folders()
    assert links == {name: Path("../..", name) for name in links}
    plain = {path.name for path in LINKS.iterdir() if not path.is_symlink()}
    assert plain - {"__pycache__"} == {"__init__.py", "__main__.py", "py.typed"}


def test_no_module_imports_a_folder_as_a_top_level_package() -> None:
    """Neither a statement nor a call of `import_module` names a package without `meterline.`."""
    names = folders()
    assert names
    # Only what may import one is parsed: all of them take six seconds.
    suspect = re.compile(
        rf"^\s*(?:from|import)\b.*(?<![.\w])(?:{'|'.join(names)})\b|import_module|find_spec|__import__",
        re.MULTILINE,
    )
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in tracked("*.py")
        if suspect.search(text := path.read_text())
        for name in imports(ast.parse(text))
        if name.partition(".")[0] in names
    ]
    assert not found


def test_no_text_imports_a_folder_as_a_top_level_package() -> None:
    """Nor does a code block of the docs, a script in a string, or a command of `python -m`."""
    one = "|".join(sorted(folders()))
    statement = rf"^[\s\"'>$]*(?:from (?:{one})(?:\.[\w.]+)? import |import (?:{one})(?:\.|$))"
    wrong = re.compile(rf"{statement}|python3? -m (?:{one})\b")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in tracked("*.py", "*.md", "*.toml", "*.yml", "*.yaml", "Makefile", "Dockerfile")
        if path != ROOT / HAS_A_PROGRAM
        for line in path.read_text().splitlines()
        if wrong.search(line)
    ]
    assert not found


def test_every_list_of_the_packages_is_whole() -> None:
    """Linters, the image and the Makefile know each package."""
    names = folders()
    text = (ROOT / "pyproject.toml").read_text()
    tools = tomllib.loads(text)["tool"]
    banned = tools["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert names <= set(banned)
    assert set(tools["vulture"]["paths"]) == names
    layers = next(each for each in tools["importlinter"]["contracts"] if each["id"] == "one-way")
    assert set(re.findall(r"\w+", " ".join(layers["layers"]))) == names - {"embedded"}
    copied = re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(copied) == names | {"src"}
    packages = re.search(r"^PACKAGES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert packages is not None
    assert set(packages[1].split()) == names


def test_the_image_is_built_from_all_that_the_package_names() -> None:
    """The build stage copies each file that pyproject.toml names, and each folder of the product."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {"pyproject.toml", project["readme"]}
    for pattern in project["license-files"]:
        matched = {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)}
        assert matched, pattern
        named |= matched
    build = (ROOT / "Dockerfile").read_text().partition("RUN ")[0]
    copies = [line.split()[1:] for line in build.splitlines() if line.startswith("COPY ")]
    copied = {source for *sources, _ in copies for source in sources}
    assert named | folders() | {"src"} == copied
    # A pattern of .dockerignore, all of which name whole paths here, would hide it from the build.
    assert not copied & set((ROOT / ".dockerignore").read_text().split())


def test_the_package_is_typed_and_the_command_is_its_own() -> None:
    """Type checkers follow the package, and `meterline` starts where only the SDK is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"meterline": "meterline.__main__:main"}
    assert project["tool"]["setuptools"]["package-data"]["meterline"] == ["py.typed"]
    assert (LINKS / "py.typed").read_text() == ""
