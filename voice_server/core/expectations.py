"""Says in words what was expected where a value is wrong or a name is not known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

Schema = Mapping[str, Any]


def suggest(name: str, known: Iterable[str], *, all_if_none: bool = True) -> str:
    """``; did you mean 'x'?`` for a near miss, else the list of what is known (or nothing)."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if all_if_none else ""


def schema_at(root: Schema, loc: Sequence[str]) -> Schema:
    """The schema of the value at ``loc``; empty where the schema says nothing about it."""
    schema = _resolve(root, root)
    for part in loc:
        by_name = schema.get("properties", {}).get(part)
        by_pattern = next(iter(schema.get("patternProperties", {}).values()), None)
        for_all = schema.get("additionalProperties") or schema.get("items")
        child = by_name or by_pattern or for_all
        schema = _resolve(root, child) if isinstance(child, dict) else {}
    return schema


def _resolve(root: Schema, schema: Schema) -> Schema:
    """Follow ``$ref``; look through ``or null``, and ``or text`` where a map may stand too."""
    if "$ref" in schema:
        definition: Schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
        return _resolve(root, definition)
    some = [_resolve(root, option) for option in schema.get("anyOf", ())]
    maps = [option for option in some if "properties" in option]
    return next((option for option in maps + some if option.get("type") != "null"), schema)


def expectation(root: Schema, schema: Schema) -> str:
    """What a value of ``schema`` is, in words: ``an integer ≥ 1``. ``root`` holds its ``$defs``."""
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"a list of {expectation(root, _resolve(root, schema.get('items', {})))}"
    names = {
        "integer": "an integer",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "object": "a map",
    }
    words = [names.get(schema.get("type", ""), "another value")]
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    if "minimum" in schema and "maximum" in schema:
        words.append(f"from {schema['minimum']} to {schema['maximum']}")
    elif bounds:
        words.append(" and ".join(bounds))
    if "pattern" in schema:
        words.append(f"like {schema['pattern']}")
    if schema.get("minLength"):
        words.append("that is not empty")
    return " ".join(words)
