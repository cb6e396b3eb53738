"""The reference of what an app imports, read from the source: signatures as they are written, docstrings as they stand.

Read, not imported: an attribute's docstring is nowhere at run time, and the page is the same on every Python.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEANING = re.compile(r"([a-z_]+(?:, [a-z_]+)*):(?=\s)")
"""How a paragraph begins that says what arguments or attributes mean."""

MEANINGS = re.compile(r"(?:\n|  )(?=[a-z_]+(?:, [a-z_]+)*:\s)")
DOCUMENTED = ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign | ast.Assign


@dataclass(frozen=True, slots=True)
class Entry:
    """One heading of a page: a class or function, and which of its members are for an app (None: all that have a docstring).

    is_made: whether an app makes objects of this class; if not, how one is made is left out."""

    module: str
    name: str
    members: tuple[str, ...] | None = None
    title: str = ""
    is_made: bool = True

    @property
    def heading(self) -> str:
        return self.title or self.name


@dataclass(frozen=True, slots=True)
class ApiPage:
    """One page of the reference: its title, what it begins with, its entries."""

    title: str
    intro: str
    entries: tuple[Entry, ...]

    def text(self) -> str:
        return f"# {self.title}\n\n{self.intro.strip()}\n" + "".join(map(entry_text, self.entries))


def entry_text(entry: Entry) -> str:
    node = find(entry.module, entry.name)
    if isinstance(node, ast.ClassDef):
        parts = [f"\n## {entry.heading}\n"]
        if entry.is_made:
            parts += [code(constructor(node, entry.heading)), prose(doc_of(node))]
        else:
            parts += [prose(doc_of(node).partition("\n\n")[0])]
        parts += [member_text(entry.heading, member, doc) for member, doc in members(node, entry.members)]
    else:
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        parts = [f"\n## {entry.heading}\n", code(f"{entry.heading}{signature(node)}"), prose(doc_of(node))]
    return "".join(parts)


def member_text(owner: str, node: DOCUMENTED, doc: str) -> str:
    name = name_of(node)
    shown = name
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_property(node):
        shown += signature(node)
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "Hook":
        shown += f"({', '.join(str(ast.literal_eval(parameter)) for parameter in node.value.args)})"
    kind = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"\n### {owner}.{name}\n" + code(f"{kind}{shown}{annotation(node)}") + prose(doc)


# ---- the source


@cache
def tree(module: str) -> ast.Module:
    path = ROOT / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def find(module: str, name: str) -> ast.AST:
    return next(node for node in tree(module).body if getattr(node, "name", None) == name)


def doc_of(node: ast.AST) -> str:
    assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    return ast.get_docstring(node) or ""


def members(owner: ast.ClassDef, chosen: tuple[str, ...] | None) -> Iterator[tuple[DOCUMENTED, str]]:
    """The public members that have a docstring, in the order of the source; of attributes it is the string that follows."""
    following = [*owner.body[1:], None]
    for node, after in zip(owner.body, following, strict=True):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = ast.get_docstring(node) or ""
        elif isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            doc = inspect.cleandoc(str(after.value.value))
        else:
            continue
        name = name_of(node)
        if doc and not name.startswith("_") and not is_setter(node) and (chosen is None or name in chosen):
            yield node, doc


def name_of(node: DOCUMENTED) -> str:
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else node
    return str(getattr(target, "id", getattr(target, "name", "")))


def is_property(node: DOCUMENTED) -> bool:
    return "property" in decorators(node)


def is_setter(node: DOCUMENTED) -> bool:
    return any(name.endswith(".setter") for name in decorators(node))


def decorators(node: DOCUMENTED) -> list[str]:
    return [ast.unparse(each) for each in getattr(node, "decorator_list", [])]


# ---- how it is shown


def constructor(node: ast.ClassDef, name: str) -> str:
    """The call that makes one."""
    init = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    if init is not None:
        return f"class {name}{signature(init, result=False)}"
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    if fields and any(each.startswith("dataclass") for each in map(ast.unparse, node.decorator_list)):
        return laid_out(f"class {name}", [ast.unparse(each) for each in fields], "")
    return f"class {name}"


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, *, result: bool = True) -> str:
    arguments = node.args
    is_bound = bool(arguments.args) and arguments.args[0].arg in ("self", "cls")
    shown = [argument(each, default) for each, default in positional(arguments)][is_bound:]
    if arguments.vararg:
        shown.append(f"*{argument(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        shown.append("*")
    shown += [argument(each, default) for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg:
        shown.append(f"**{argument(arguments.kwarg, None)}")
    return laid_out("", shown, f" -> {ast.unparse(node.returns)}" if result and node.returns else "")


def positional(arguments: ast.arguments) -> list[tuple[ast.arg, ast.expr | None]]:
    names = [*arguments.posonlyargs, *arguments.args]
    return list(zip(names, [*[None] * (len(names) - len(arguments.defaults)), *arguments.defaults], strict=True))


def argument(node: ast.arg, default: ast.expr | None) -> str:
    annotated = f"{node.arg}: {ast.unparse(node.annotation)}" if node.annotation else node.arg
    return annotated if default is None else f"{annotated} = {ast.unparse(default)}"


def laid_out(before: str, parts: list[str], after: str) -> str:
    """A call on one line, or a line for each argument where that would be long."""
    line = f"{before}({', '.join(parts)}){after}"
    if len(line) <= 90:
        return line
    return f"{before}(\n" + "".join(f"    {part},\n" for part in parts) + f"){after}"


def annotation(node: DOCUMENTED) -> str:
    if isinstance(node, ast.AnnAssign):
        return f": {ast.unparse(node.annotation)}"
    if isinstance(node, ast.FunctionDef) and is_property(node) and node.returns:
        return f": {ast.unparse(node.returns)}"
    return ""


def code(text: str) -> str:
    return f"\n```py\n{text}\n```\n"


def prose(doc: str) -> str:
    """A docstring as Markdown: its indented lines are code, its `name: meaning` lines a list."""
    paragraphs = [paragraph(each) for each in doc.strip().split("\n\n") if each.strip()]
    return "".join(f"\n{each}\n" for each in paragraphs)


def paragraph(text: str) -> str:
    if text.startswith("    "):
        return f"```python\n{textwrap.dedent(text)}\n```"
    if not MEANING.match(text):
        return text
    items = (MEANING.sub(named, item, count=1).replace("\n", "\n  ") for item in MEANINGS.split(text))
    return "\n".join(f"- {item}" for item in items)


def named(found: re.Match[str]) -> str:
    return ", ".join(f"`{name}`" for name in found[1].split(", ")) + ":"
