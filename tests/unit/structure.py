"""What test_tidy asks of the source tree, as functions over parsed files. Each returns breaches in words."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LIMIT = 400
FUNCTION_LIMIT = 70

FRONT = "agent_party"
LAYERS: dict[str, frozenset[str]] = {
    "eventstore": frozenset({"eventstore"}),
    "actors": frozenset({"eventstore", "actors"}),
    "projections": frozenset({"eventstore", "projections"}),
    "cluster": frozenset({"eventstore", "actors", "projections", "cluster"}),
    FRONT: frozenset({"eventstore", "actors", "projections", "cluster", FRONT}),
}
"""Each layer, and the layers it may import."""

MAY_IMPORT_RAY = frozenset({"cluster"})


def python_files(root: Path, *folders: str) -> Iterator[Path]:
    """Every .py file below the folders, each once: what lies behind a symlink counts under its real name."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents if parent != root and root in parent.parents):
                yield path


def too_long(path: Path) -> list[str]:
    """The file and the functions that exceed the limits of length."""
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    breaches = [f"{path}: {lines} lines, {FILE_LIMIT} allowed"] if lines > FILE_LIMIT else []
    for node in ast.walk(ast.parse(text, str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LIMIT:
                breaches.append(f"{path}:{node.lineno}: {node.name} has {length} lines, {FUNCTION_LIMIT} allowed")
    return breaches


def imported(path: Path, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything the file imports, anywhere in it.

    `package` is the file's own, for relative imports.
    `from a.b import c` counts as `a.b.c`. `import_module("a.b")` and `__import__("a.b")` count too.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*above, *([module] if module else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(func=func, args=[ast.Constant(value=str(name)), *_]):
                called = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
                if called in {"import_module", "__import__"}:
                    yield node.lineno, name


def wrong_direction(root: Path, path: Path) -> list[str]:
    """Imports in the file that its layer may not make."""
    parts = path.relative_to(root).parts
    layer = parts[0]
    package = ".".join(parts[:-1]) if layer == FRONT else ".".join([FRONT, *parts[:-1]])
    breaches = []
    for line, name in imported(path, package):
        head, *rest = name.split(".")
        target = (rest[0] if rest and rest[0] in LAYERS else FRONT) if head == FRONT else None
        if head in LAYERS and head != FRONT:
            breaches.append(f"{path}:{line}: imports {name} under its bare name")
        elif target is not None and target not in LAYERS[layer]:
            breaches.append(f"{path}:{line}: {layer} may not import {name}")
        elif head == "ray" and layer not in MAY_IMPORT_RAY:
            breaches.append(f"{path}:{line}: only cluster imports ray")
    return breaches


def not_standalone(path: Path, *, allowed: frozenset[str]) -> list[str]:
    """Imports in the file of anything but the standard library and the allowed packages."""
    return [
        f"{path}:{line}: imports {name}"
        for line, name in imported(path, "")
        if (head := name.split(".")[0]) not in allowed and head not in sys.stdlib_module_names
    ]
