"""GitHub's own description as the judge of requests, answers and webhooks.

The description is OpenAPI 3.0; it becomes JSON Schema on loading. Its ``uri`` formats are dropped, since
app logins such as ``name[bot]`` break them, and a nullable enum takes null even where it does not list it.
"""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from tests.doubles.github.state import Json

_DATA = Path(__file__).parents[2] / "data" / "github"
_DROPPED_FORMATS = {"uri", "uri-template", "uri-reference"}
_COMBINATIONS = ("allOf", "anyOf", "oneOf")


def _as_json_schema(node: Any) -> Any:
    """OpenAPI 3.0 to JSON Schema: ``nullable`` becomes a type."""
    if isinstance(node, list):
        return [_as_json_schema(one) for one in node]
    if not isinstance(node, dict):
        return node
    out = {key: _as_json_schema(value) for key, value in node.items()}
    if isinstance(out.get("format"), str) and out["format"] in _DROPPED_FORMATS:
        del out["format"]
    if out.pop("nullable", None) is not True:
        return out
    if isinstance(out.get("enum"), list) and None not in out["enum"]:
        out["enum"] = [*out["enum"], None]
    if isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return {"anyOf": [out, {"type": "null"}]} if any(key in out for key in (*_COMBINATIONS, "$ref")) else out


def _closed(node: Any) -> Any:
    """The same schema, refusing properties it does not name."""
    if not isinstance(node, dict):
        return node
    out = dict(node)
    if "properties" in out:
        out["properties"] = {name: _closed(one) for name, one in out["properties"].items()}
        if not any(key in out for key in _COMBINATIONS):
            out.setdefault("additionalProperties", False)
    if "items" in out:
        out["items"] = _closed(out["items"])
    for key in ("anyOf", "oneOf"):
        if key in out and "properties" not in out:
            out[key] = [_closed(one) for one in out[key]]
    return out


@dataclass(frozen=True)
class Operation:
    """One endpoint of the description; ``endpoint`` is method and template."""

    endpoint: str
    pattern: re.Pattern[str]
    pointer: str
    node: Json
    parameters: tuple[Json, ...]


class Document:
    """One description with its compiled validators."""

    def __init__(self, name: str) -> None:
        self.data: Json = _as_json_schema(json.loads((_DATA / name).read_bytes()))
        self._registry = jsonschema_rs.Registry([("urn:github", self.data)])
        self._validators: dict[tuple[str, bool], jsonschema_rs.Validator] = {}

    def resolve(self, node: Json) -> Json:
        """The node itself, or what its reference points at."""
        while "$ref" in node:
            found: Any = self.data
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            node = found
        return node

    def errors(self, schema: Json, instance: Any, *, closed: bool = False) -> list[str]:
        """What is wrong with an instance, one sentence each."""
        key = (json.dumps(schema, sort_keys=True), closed)
        if key not in self._validators:
            given = _closed(self.resolve(schema)) if closed else schema
            absolute = json.loads(json.dumps(given).replace('"$ref": "#/', '"$ref": "urn:github#/'))
            self._validators[key] = jsonschema_rs.Draft202012Validator(
                absolute, registry=self._registry, validate_formats=True
            )
        return [
            f"{'/'.join(map(str, error.instance_path)) or 'it'}: {error.message[:300]}"
            for error in self._validators[key].iter_errors(instance)
        ]


class Rest(Document):
    """The REST interface."""

    def __init__(self) -> None:
        super().__init__("github-openapi-subset.json")
        found = [
            self._operation(template, method, node)
            for template, item in self.data["paths"].items()
            for method, node in item.items()
        ]
        # The most literal template wins: issues/comments/1 is not issue "comments".
        self._operations = sorted(
            found, key=lambda one: (".*" in one.pattern.pattern, one.endpoint.count("{"), -len(one.endpoint))
        )

    def _operation(self, template: str, method: str, node: Json) -> Operation:
        parameters = tuple(self.resolve(one) for one in node.get("parameters", []))
        multi = {one["name"] for one in parameters if one.get("x-multi-segment")}
        parts = re.split(r"\{(\w+)\}", template)
        text = re.escape(parts[0])
        for name, rest in zip(parts[1::2], parts[2::2], strict=True):
            text += f"(?P<{name}>{'.*' if name in multi else '[^/]+'})" + re.escape(rest)
        return Operation(f"{method.upper()} {template}", re.compile(text), template, node, parameters)

    def match(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        """The operation of a raw path, with its decoded parameters."""
        for one in self._operations:
            found = one.pattern.fullmatch(path) if one.endpoint.startswith(f"{method} ") else None
            if found:
                return one, {name: unquote(value) for name, value in found.groupdict().items()}
        return None

    def wrong_request(
        self, it: Operation, params: Mapping[str, str], query: Mapping[str, str], body: Any
    ) -> list[str]:
        """What GitHub would refuse: parameters and body against their schemas."""
        wrong = []
        for parameter in it.parameters:
            given = {"path": params, "query": query}.get(parameter["in"], {}).get(parameter["name"])
            if given is None and parameter.get("required"):
                wrong.append(f"parameter {parameter['name']} is missing")
            if given is not None:
                value = _coerced(given, self.resolve(parameter["schema"]))
                wrong += [
                    f"parameter {parameter['name']}: {why}" for why in self.errors(parameter["schema"], value)
                ]
        schema = self._body_schema(it)
        if body is None:
            return (
                [*wrong, "the body is missing"] if it.node.get("requestBody", {}).get("required") else wrong
            )
        return wrong + [f"body {why}" for why in (self.errors(schema, body) if schema is not None else [])]

    def unknown_in_request(self, it: Operation, query: Mapping[str, str], body: Any) -> list[str]:
        """What GitHub would ignore, and what a client therefore should not send."""
        known = {one["name"] for one in it.parameters if one["in"] == "query"}
        unknown = [f"query parameter {name} is not described" for name in query if name not in known]
        schema = self._body_schema(it)
        if body is None:
            return unknown
        if schema is None:
            return [*unknown, "a body is not described"]
        plain = set(self.errors(schema, body))
        return unknown + [f"body {why}" for why in self.errors(schema, body, closed=True) if why not in plain]

    def _body_schema(self, it: Operation) -> Json | None:
        content = it.node.get("requestBody", {}).get("content", {})
        found: Json | None = content.get("application/json", {}).get("schema")
        return found

    def wrong_answer(self, it: Operation, status: int, body: Any) -> list[str]:
        """What is wrong with an answer; a refusal it leaves out has the shape of all refusals."""
        described = it.node["responses"].get(str(status))
        if described is None and status >= 400:
            return self.errors({"$ref": "#/components/schemas/basic-error"}, body)
        if described is None:
            return [f"status {status} is not described"]
        content = self.resolve(described).get("content", {})
        if not content:
            return [] if body is None else [f"status {status} has no body"]
        return self.errors(content["application/json"]["schema"], body)


def _coerced(text: str, schema: Json) -> Any:
    if schema.get("type") == "integer" and text.lstrip("-").isdigit():
        return int(text)
    if schema.get("type") == "boolean" and text in {"true", "false"}:
        return text == "true"
    return text


class Webhooks(Document):
    """The webhooks."""

    def __init__(self) -> None:
        super().__init__("github-webhooks-openapi-subset.json")

    def wrong(self, event: str, payload: Json) -> list[str]:
        """What is wrong with a payload."""
        name = "-".join(filter(None, (event, payload.get("action")))).replace("_", "-")
        described = self.data["x-webhooks"].get(name)
        if described is None:
            return [f"{name} is not described"]
        return self.errors(described["post"]["requestBody"]["content"]["application/json"]["schema"], payload)


@functools.cache
def rest() -> Rest:
    """The REST description, loaded once."""
    return Rest()


@functools.cache
def webhooks() -> Webhooks:
    """The webhook description, loaded once."""
    return Webhooks()
