#!/usr/bin/env python3
"""Writes the API reference in docs/python.md, from its mark on, out of the docstrings of python/upg.

  python_reference.py           rewrites it
  python_reference.py --check   exits 1 if that would change it

Reads the sources only: nothing has to be built.
"""
import ast
import inspect
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/python.md"
MARK = "<!-- written by scripts/python_reference.py from here on -->\n"

# Sections: title, source, and the public names in the order of the page.
SECTIONS = [
    ("Models", "_model.py", ["load", "Model", "Stream", "Completion", "Tokenizer"]),
    ("Options", "_options.py", ["GenerateOptions"]),
    ("Many requests", "_llm.py",
     ["LLM", "AsyncEngine", "SamplingParams", "RequestOutput", "CompletionOutput", "Logprob"]),
    ("Files", "_files.py",
     ["demo", "compress", "CompressReport", "inspect", "ModelReport", "TensorReport", "verify", "decompress",
      "evaluate", "TextEvaluation", "TaskEvaluation", "Estimate"]),
    ("Matrices", "_matrix.py", ["PRIMES", "open_matrix", "PackedMatrix", "MdCSR", "Trellis", "Int8"]),
    ("transformers", "transformers.py", ["export", "UpgConfig", "UpgLinear", "UpgEmbedding"]),
    ("Errors", "_errors.py",
     ["Error", "InvalidArgumentError", "InvalidFileError", "UnsupportedError", "NotFoundError", "IoError",
      "OutOfMemoryError", "CancelledError", "BusyError"]),
]


def docstring(node):
    """Of a function or class, or of an attribute: a string after it, or a comment "#:" before it."""
    text = ast.get_docstring(node)
    return text or ""


def arguments(function):
    """The signature without self and cls; annotations as they are written."""
    args = function.args
    positional = args.posonlyargs + args.args
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    parts = []

    def one(arg, default, prefix=""):
        text = prefix + arg.arg
        if arg.annotation:
            text += f": {ast.unparse(arg.annotation)}"
        if default is not None:
            text += f" = {ast.unparse(default)}" if arg.annotation else f"={ast.unparse(default)}"
        return text

    for i, (arg, default) in enumerate(zip(positional, defaults)):
        if i == 0 and arg.arg in ("self", "cls"):
            continue
        parts.append(one(arg, default))
    if args.vararg:
        parts.append(one(args.vararg, None, "*"))
    elif args.kwonlyargs:
        parts.append("*")
    parts += [one(a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults)]
    if args.kwarg:
        parts.append(one(args.kwarg, None, "**"))
    returns = f" -> {ast.unparse(function.returns)}" if function.returns and function.name != "__init__" else ""
    return parts, returns


def signature(name, function):
    parts, returns = arguments(function)
    line = f"{name}({', '.join(parts)}){returns}"
    if len(line) > 100:
        line = f"{name}(\n" + "".join(f"    {p},\n" for p in parts) + f"){returns}"
    return f"```python\n{line}\n```\n"


def prose(text):
    """A docstring as Markdown: roles and double backquotes become plain ones, indented examples stay code."""
    out = text
    for role in (":class:", ":meth:", ":func:"):
        out = out.replace(role, "")
    return out.replace("``", "`").strip() + "\n"


def is_property(function):
    return any(ast.unparse(d) == "property" for d in function.decorator_list)


def is_overload(function):
    return any(ast.unparse(d) == "overload" for d in function.decorator_list)


def fields(cls):
    """(line, docstring) of annotated attributes, each with the string that follows it."""
    for i, node in enumerate(cls.body):
        if not isinstance(node, ast.AnnAssign) or node.target.id.startswith("_"):
            continue
        following = cls.body[i + 1] if i + 1 < len(cls.body) else None
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = inspect.cleandoc(following.value.value)
        default = f" = {ast.unparse(node.value)}" if node.value and "field(" not in ast.unparse(node.value) else ""
        yield f"{node.target.id}: {ast.unparse(node.annotation)}{default}", text


def describe_class(cls):
    bases = [text for b in cls.bases if not (text := ast.unparse(b)).startswith("_")]
    shown = f" ({', '.join(bases)})" if bases else ""
    yield f"### upg.{cls.name}{shown}\n"
    yield prose(docstring(cls))
    members = [n for n in cls.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    constructor = next((m for m in members if m.name == "__init__"), None)
    if constructor is not None and not any(a.arg in ("matrix", "engine", "stream") for a in constructor.args.args):
        yield signature(f"upg.{cls.name}", constructor)
    listed = [f"- `{line}`{': ' + prose(text).strip() if text else ''}" for line, text in fields(cls)]
    for member in members:
        if is_property(member) and not member.name.startswith("_"):
            returns = f": {ast.unparse(member.returns)}" if member.returns else ""
            text = prose(docstring(member)).strip()
            listed.append(f"- `{member.name}{returns}`{': ' + text if text else ''}")
    if listed:
        yield "\n".join(listed) + "\n"
    for member in members:
        if member.name.startswith("_") or is_property(member) or not docstring(member):
            continue
        yield signature(f"{'async for ... in ' if is_async_generator(member) else ''}{cls.name}.{member.name}", member)
        yield prose(docstring(member))


def is_async_generator(member):
    return isinstance(member, ast.AsyncFunctionDef) and any(isinstance(n, ast.Yield) for n in ast.walk(member))


def comment_before(lines, node):
    """The "#:" comment on the line before."""
    line = lines[node.lineno - 2].strip()
    return line[2:].strip() if line.startswith("#:") else ""


def reference():
    out = [MARK, "## API reference\n"]
    for title, source, names in SECTIONS:
        text = (ROOT / "python/upg" / source).read_text(encoding="utf-8")
        tree = ast.parse(text)
        found = {}
        for node in tree.body:
            name = getattr(node, "name", None) or getattr(getattr(node, "target", None), "id", None)
            if name and not (isinstance(node, ast.FunctionDef) and is_overload(node)):
                found[name] = node
        module = "upg.transformers." if source == "transformers.py" else "upg."
        out.append(f"## {title}\n")
        for name in names:
            node = found[name]
            if isinstance(node, ast.ClassDef):
                parts = list(describe_class(node))
                parts[0] = parts[0].replace("### upg.", f"### {module}")
                out += parts
            elif isinstance(node, ast.FunctionDef):
                out += [f"### {module}{name}\n", signature(f"{module}{name}", node), prose(docstring(node))]
            else:
                out += [f"### {module}{name}\n", f"`{ast.unparse(node.annotation)}`: {comment_before(text.splitlines(), node)}\n"]
    return "\n".join(out)


def main():
    page = PAGE.read_text(encoding="utf-8")
    if MARK not in page:
        sys.exit(f"{PAGE}: has no line \"{MARK.strip()}\"")
    written = page[: page.index(MARK)] + reference()
    if sys.argv[1:] == ["--check"]:
        if written != page:
            sys.exit("docs/python.md is not current: run scripts/python_reference.py")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        PAGE.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
