"""The layout, the import table, the size caps and the docstrings, read from the sources with ast."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("app", "controls", "generator")
TOP = {
    "pyproject.toml", "README.md", "LICENSE", "LOG.md", "run.py", "app", "generator", "controls", "assets", "tests",
    ".ci", ".gitignore", ".gitattributes", "docs",
}  # fmt: skip
FILE_LINES, FUNCTION_LINES, LOOP_LINES = 400, 60, 100

# from the bottom up; a module imports from its own level's first names downwards, see `may`
LEVELS = (
    ("controls",),
    ("generator.precision",),
    ("generator.samplers",),
    ("generator.config",),
    ("generator.scene", "generator.tokenizer", "generator.model"),
    ("generator.data", "generator.rollout", "generator.checkpoint"),
    ("generator.training", "generator.runtime"),
    ("generator.world",),
    ("app", "generator.evaluation"),
    ("run",),
)
ONE_GROUP = {"generator.data", "generator.rollout", "generator.checkpoint"}  # may import one another


def sources() -> list[Path]:
    return [*sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")), ROOT / "run.py"]


def own_tests() -> list[Path]:
    return sorted((ROOT / "tests").rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def exists(module: str) -> bool:
    place = ROOT.joinpath(*module.split("."))
    return place.with_suffix(".py").is_file() or place.is_dir()


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            for alias in node.names:
                full = f"{module}.{alias.name}"
                found.add(full if exists(full) and module.split(".")[0] in PACKAGES else module)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            named = node.args[0]
            assert isinstance(named, ast.Constant), f"{path} imports a module by a name that is made up"
            found.add(named.value)
    return frozenset(found)


def part_of(module: str) -> str | None:
    """The name in LEVELS that a module belongs to; None for packages that are not ours."""
    for level in LEVELS:
        for name in level:
            if module == name or module.startswith(name + "."):
                return name
    return None


def level_of(part: str) -> int:
    return next(number for number, level in enumerate(LEVELS) if part in level)


def may(importer: str, imported: str) -> bool:
    """Whether one part may import another."""
    if importer == imported:
        return True
    if importer == "generator.samplers":
        return False
    if importer == "app":
        return imported in ("controls", "generator.world")
    if {importer, imported} <= ONE_GROUP:
        return True
    return level_of(imported) < level_of(importer)


def outside(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_import_table(path):
    own = part_of(module_name(path))
    wrong = []
    for module in imports(path):
        other = part_of(module)
        if own is not None and other is not None and not may(own, other):
            wrong.append(module)
        if outside(module) == "pygame" and not (own == "app" or module_name(path).startswith("controls.devices")):
            wrong.append(module)
        if outside(module) in ("torch", "openvino", "safetensors") and own in ("app", "controls", "generator.scene"):
            wrong.append(module)
    assert wrong == [], f"{module_name(path)} may not import {sorted(wrong)}"


def test_world_and_config_name_torch_only_inside_functions():
    for name in ("generator/world.py", "generator/config.py", "generator/scene.py", "run.py"):
        heads = [node for node in tree(ROOT / name).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        named = {alias.name for node in heads if isinstance(node, ast.Import) for alias in node.names}
        named |= {node.module or "" for node in heads if isinstance(node, ast.ImportFrom)}
        assert "torch" not in {outside(n) for n in named}, name
        assert not any(n.startswith(("generator.runtime", "generator.checkpoint", "generator.model")) for n in named)


def test_the_table_itself():
    assert may("generator.training", "generator.data") and not may("generator.data", "generator.training")
    assert not may("generator.training", "generator.runtime") and not may("generator.training", "generator.world")
    assert not may("generator.training", "generator.evaluation") and not may("generator.world", "app")
    assert may("app", "generator.world") and not may("app", "generator.scene") and may("run", "app")
    assert not may("generator.samplers", "controls") and may("generator.data", "generator.checkpoint")
    known = {part_of(module_name(path)) for path in sources() if module_name(path) != "generator"}
    assert None not in known, "a module belongs to no part of the table"


@pytest.mark.parametrize("path", sources() + own_tests(), ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= FILE_LINES, f"{path.name} has {lines} lines"
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            stage = node.name == "train" and "training" in path.parts
            loop = node.name in ("run", "loop") and "screens" in path.parts
            length = (node.end_lineno or 0) - node.lineno + 1
            cap = LOOP_LINES if stage or loop else FUNCTION_LINES
            assert length <= cap, f"{path.name}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_says_what_it_does_not_know(path):
    text = path.read_text(encoding="utf-8")
    if path.name == "__init__.py" and not text.strip():
        return
    said = " ".join((ast.get_docstring(tree(path)) or "").split())
    assert re.search("does not know|knows nothing|knows .* only", said, re.IGNORECASE), (
        f"{path.name} does not say what it does not know"
    )


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_forbidden(path):
    """No pickled weights, no catch-all that hides, no eval."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path.name}:{node.lineno} catches everything"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "torch.load", "yaml.load"), (
                f"{path.name}:{node.lineno} calls {name}"
            )


def test_tests_mirror_the_tree():
    for path in own_tests():
        folder = path.parent.relative_to(ROOT / "tests")
        homes = [ROOT / name / folder for name in ("", *PACKAGES)]
        assert any(home.is_dir() for home in homes), f"{path} has no counterpart"
        assert path.name != "__init__.py"
    names = [path.name for path in own_tests() if path.name != "conftest.py"]
    assert len(names) == len(set(names)), "two test files share a name"


def test_top_level():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    tracked = {line.split("/")[0] for line in listed.stdout.splitlines() if (ROOT / line).exists()}
    assert tracked <= TOP, f"{sorted(tracked - TOP)} do not belong at the top"
