"""References to Python names in docstrings: a public name is a link, by whichever path or short name it is written."""

import importlib

from site_pages.api import public_names, rooms


def setup(app):
    """Resolve what Sphinx does not find."""
    app.connect("missing-reference", _on_missing)


def _paths() -> dict[str, str]:
    """Return the public path of each public name by its short name and by the path of the file that defines it."""
    paths: dict[str, str] = {}
    for room in reversed(rooms()):  # a name of an earlier room wins
        for each in public_names(room):
            paths[each.name] = each.path
            if hasattr(each.value, "__qualname__"):
                paths[f"{each.value.__module__}.{each.value.__qualname__}"] = each.path
    for room in reversed(rooms()):
        paths |= {each.path: _first(each, paths) for each in public_names(room)}
    return paths


def _first(each, paths: dict[str, str]) -> str:
    """Return the path under which a name that two rooms export has its page."""
    qualified = getattr(each.value, "__qualname__", None)
    return each.path if qualified is None else paths[f"{each.value.__module__}.{qualified}"]


def _on_missing(app, env, node, content):
    """Link a public name; leave other names as they are, but for those of ours that do not exist."""
    if node.get("refdomain") != "py":
        return None
    if not hasattr(app, "public_paths"):
        app.public_paths = _paths()
    target = node["reftarget"]
    head, rest = target, ""
    while head and head not in app.public_paths:
        head, _, last = head.rpartition(".")
        rest = f".{last}{rest}"
    if head:
        python = env.domains.python_domain
        resolved = python.resolve_xref(
            env, node["refdoc"], app.builder, "obj", app.public_paths[head] + rest, node, content
        )
        return content if resolved is None else resolved
    return content if node["reftype"] == "class" or not target.startswith("glas3d.") or _exists(target) else None


def _exists(path: str) -> bool:
    """Return whether a dotted path can be imported."""
    head, _, last = path.rpartition(".")
    try:
        importlib.import_module(path)
    except ImportError:
        return bool(head) and _has(head, last)
    return True


def _has(head: str, last: str) -> bool:
    try:
        return hasattr(importlib.import_module(head), last)
    except ImportError:
        outer, _, inner = head.rpartition(".")
        try:
            return hasattr(getattr(importlib.import_module(outer), inner), last)
        except (ImportError, AttributeError, ValueError):
            return False
