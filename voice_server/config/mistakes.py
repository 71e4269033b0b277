"""Says what is wrong with a configuration: where, and what was expected there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel, ValidationError

from voice_server.core.expectations import expectation, schema_at, suggest


def explain(
    error: ValidationError, model: type[BaseModel], label: Callable[[Sequence[str]], str]
) -> str:
    """One line for each mistake: where it is, and what the model's JSON schema expects there."""
    root = model.model_json_schema()
    lines = []
    for item in error.errors(include_url=False):
        loc = [str(part) for part in item["loc"]]
        is_key = loc[-1:] == ["[key]"]
        loc = loc[:-1] if is_key else loc
        match item["type"]:
            case "extra_forbidden":
                siblings = schema_at(root, loc[:-1]).get("properties", {})
                problem = f"unknown key{suggest(loc[-1], siblings)}"
            case "missing":
                problem = "this key is missing"
            case "value_error":
                problem = str(item["ctx"]["error"])
            case "string_type" if is_key:
                problem = "expected a name, in quotes where YAML takes it for a number or a date"
            case _ if is_key:
                problem = "expected a name of a-z, 0-9, - and _, beginning with a letter"
            case _:
                schema = schema_at(root, loc)
                is_secret = schema.get("format") == "password"
                got = "something else" if is_secret else f"{item['input']!r:.60}"
                problem = f"expected {expectation(root, schema)}, got {got}"
        lines.append(" › ".join(filter(None, (label(loc), problem))))
    return "\n".join(lines)
