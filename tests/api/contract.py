"""Every exchange with the API against GET /openapi.json: path, method, parameters, body, status, headers, content.

What is not as declared is gathered here and told by the last test of the run (test_openapi.py), so that one wrong
word in the document does not hide what else a test has to say.
"""

import contextlib
import json
import re
import urllib.parse

import jsonschema

from lab.gateway import UnixConnection

SCHEMA_CHECKED_MAX = 1 << 20  # bodies above this are looked at by their tests alone: checking a schema is slow
OUR_HEADERS = ("etag", "location", "retry-after", "set-cookie", "allow", "www-authenticate")
_formats = jsonschema.FormatChecker()


@_formats.checks("date-time")
def _is_time(text):
    return not isinstance(text, str) or bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", text))


class Contract:
    """The document, and what was found to differ from it."""

    def __init__(self):
        self.document = None
        self.faults = {}  # what was wrong: where it was seen first
        self.exercised = set()  # (method, template)
        self.where = "?"
        self._validators = {}

    # ---- the document ----

    def load(self, document):
        """Takes the document of a daemon; all daemons of a run have the same."""
        self.document = document
        self._validators = {}
        templates = sorted(document["paths"], key=lambda path: (path.count("{"), path))
        self._paths = [(re.compile(re.sub(r"\\\{[^/]*?\\\}", "[^/]+", re.escape(path))), path) for path in templates]

    def resolve(self, value):
        """What a local $ref stands for."""
        while isinstance(value, dict) and "$ref" in value:
            steps = value["$ref"].removeprefix("#/").split("/")
            value = self.document
            for step in steps:
                value = value[step.replace("~1", "/").replace("~0", "~")]
        return value

    def find(self, path):
        """(template, path item), or (None, None)."""
        for pattern, template in self._paths:
            if pattern.fullmatch(path):
                return template, self.resolve(self.document["paths"][template])
        return None, None

    def operations(self):
        """All declared (METHOD, template)."""
        methods = ("get", "put", "post", "patch", "delete")
        return {(method.upper(), path) for path, item in self.document["paths"].items() for method in item if method in methods}

    def schema_faults(self, schema, value):
        """What is wrong with a value; local references lead into the whole document."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            whole = {"components": self.document["components"], "allOf": [schema]}
            self._validators[key] = jsonschema.Draft202012Validator(whole, format_checker=_formats)
        for error in sorted(self._validators[key].iter_errors(value), key=str):
            deepest = error
            while deepest.context:
                deepest = max(deepest.context, key=lambda inner: len(inner.absolute_path))
            # The numbers of items differ from run to run; which of many it was does not matter.
            place = "/".join("N" if isinstance(step, int) else str(step) for step in deepest.absolute_path)
            yield f"/{place}: {deepest.message[:200]}"

    # ---- one exchange ----

    def note(self, operation, text):
        """A difference."""
        self.faults.setdefault(f"{operation}: {text}", self.where)

    def exchange(self, method, target, headers, body, status, answer_headers, answer_body):
        """Looks at one exchange: headers with names in any case, bodies as bytes."""
        headers = {key.lower(): value for key, value in headers.items()}
        answer_headers = {key.lower(): value for key, value in answer_headers.items()}
        path, _, query = target.partition("?")
        template, item = self.find(path)
        operation = self.resolve(item).get(method.lower()) if item else None
        if method == "HEAD" and operation is None and item:
            operation = item.get("get")
        if method == "OPTIONS" and operation is None:
            return
        name = f"{method} {template or path}"
        if operation is None:
            self.undeclared(name, item, status, answer_headers, answer_body)
            return
        self.exercised.add((method, template))
        if status < 400:
            self.parameters(name, item, operation, query, headers)
            self.request_body(name, operation, headers, body)
        self.answer(name, operation, status, answer_headers, None if method == "HEAD" else answer_body)

    def undeclared(self, name, item, status, headers, body):
        """What the document does not have must be refused, with the general document of refusals."""
        if status < 400:
            if not name.startswith("GET /") or name.startswith("GET /api/"):
                self.note(name, f"answered with {status}, but not declared")
            return
        if headers.get("content-type") == "application/problem+json" and body:
            for fault in self.schema_faults({"$ref": "#/components/schemas/problem"}, json.loads(body)):
                self.note(name, f"{status}: {fault}")
        if status == 405 and item:
            declared = {m.upper() for m in item if m in ("get", "put", "post", "patch", "delete")}
            allowed = set(headers.get("allow", "").split(", ")) - {"HEAD", "OPTIONS"}
            if declared != allowed:
                self.note(name, f"Allow has {sorted(allowed)}, declared are {sorted(declared)}")

    def parameters(self, name, item, operation, query, headers):
        """Of an accepted request."""
        declared = [self.resolve(p) for p in item.get("parameters", []) + operation.get("parameters", [])]
        by_name = {(p["in"], p["name"].lower()): p for p in declared}
        for key, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
            self.parameter(name, by_name.get(("query", key)), f"query parameter {key}", value)
        for key in ("if-match", "if-none-match", "last-event-id"):
            if key in headers:
                self.parameter(name, by_name.get(("header", key)), f"header {key}", headers[key])

    def parameter(self, name, parameter, what, value):
        """One of them, sent as text."""
        if parameter is None:
            self.note(name, f"{what} was accepted, but is not declared")
            return
        schema = self.resolve(parameter["schema"])
        if schema.get("type") == "integer" and re.fullmatch(r"\d+", value):
            value = int(value)
        elif schema.get("type") == "boolean" and value in ("true", "false"):
            value = value == "true"
        elif schema.get("type") == "array":
            value = value.split(",")
        for fault in self.schema_faults(schema, value):
            self.note(name, f"{what} was accepted: {fault}")

    def request_body(self, name, operation, headers, body):
        """Of an accepted request: what the document does not allow must not have been taken."""
        declared = self.resolve(operation.get("requestBody"))
        if not body:
            if declared and declared.get("required") and "content-type" not in headers:
                self.note(name, "accepted without the body that is declared as required")
            return
        if not declared:
            self.note(name, "accepted with a body, which is not declared")
            return
        self.content(name, "request", declared["content"], headers.get("content-type", ""), body)

    def answer(self, name, operation, status, headers, body):
        """Status, headers and body of an answer."""
        responses = operation["responses"]
        declared = self.resolve(responses.get(str(status), responses.get("default")))
        if declared is None:
            self.note(name, f"answered with {status}, which is not declared")
            return
        known = {key.lower(): self.resolve(value) for key, value in declared.get("headers", {}).items()}
        for key in headers:
            if (key.startswith("gateway-") or key in OUR_HEADERS) and key not in known:
                self.note(name, f"{status}: header {key} is not declared")
        for key, value in known.items():
            if value.get("required") and key not in headers:
                self.note(name, f"{status}: header {key} is missing")
        if body:
            self.content(name, str(status), declared.get("content", {}), headers.get("content-type", ""), body)
        elif declared.get("content") and body is not None and "content-type" not in headers:
            self.note(name, f"{status}: a body is declared, and none came")

    def content(self, name, what, declared, kind, body):
        """A body against its media type's schema."""
        kind = kind.partition(";")[0].strip().lower()
        if kind not in declared:
            self.note(name, f"{what}: {kind or 'a body without media type'}, declared are {sorted(declared)}")
            return
        schema = declared[kind].get("schema")
        if schema is None or not kind.endswith("json") or len(body) > SCHEMA_CHECKED_MAX:
            return
        try:
            value = json.loads(body)
        except ValueError:
            self.note(name, f"{what}: not JSON")
            return
        for fault in self.schema_faults(schema, value):
            self.note(name, f"{what}: {fault}")


CONTRACT = Contract()


def observe(path, method, target, headers, body, status, answer_headers, answer_body):
    """Looks at an exchange with the daemon whose unix socket is at `path`; the first one brings the document."""
    if CONTRACT.document is None:
        connection = UnixConnection(path)
        with contextlib.closing(connection):
            connection.request("GET", "/api/v1/openapi.json")
            CONTRACT.load(json.loads(connection.getresponse().read()))
    CONTRACT.exchange(method, target, headers, body or b"", status, answer_headers, answer_body)


def observe_bytes(path, sent, answer):
    """The same for a request said as bytes; what is not well-formed HTTP has no operation, but may have an answer."""
    head, _, body = sent.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    status, headers, answer_body = answer
    if len(words) != 3 or not words[1].startswith("/") or status in (400, 408, 413, 421, 431, 501):
        observe(path, "GET", "/api/v1/-", {}, b"", status, headers, answer_body)
        return
    fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    observe(path, words[0], words[1], fields, body, status, headers, answer_body)


class ObservedConnection(UnixConnection):
    """A connection whose exchanges are looked at; in place of that of lab.gateway while an API test runs."""

    def request(self, method, url, body=None, headers=None, **options):
        self.asked = (method, url, headers or {}, body)
        super().request(method, url, body, headers or {}, **options)

    def getresponse(self):
        response = super().getresponse()
        body = response.read()
        response.read = lambda: body
        observe(self.path, *self.asked, response.status, dict(response.headers), body)
        return response
