"""GitHub's signature: what holds, what does not, and how services compare secrets."""

import ast
import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import contracts
import services
from contracts.vault import Secret
from services.gateway.signature import SignedBody, verify

BODY = b'{"action":"opened"}'
SECRETS = [(1, Secret("first")), (2, Secret("second"))]


def sign(body: bytes, by: str = "first") -> bytes:
    return b"sha256=" + hmac.new(by.encode(), body, hashlib.sha256).hexdigest().encode()


def test_githubs_own_example_holds() -> None:
    # GitHub Docs, "Validating webhook deliveries", testing the webhook payload validation
    value = b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secrets = [(7, Secret("It's a Secret to Everybody"))]
    assert verify(b"Hello, World!", [value], secrets) == SignedBody(b"Hello, World!", 7)


@pytest.mark.parametrize(("secret", "app"), [("first", 1), ("second", 2)])
def test_the_secret_tells_the_app(secret: str, app: int) -> None:
    assert verify(BODY, [sign(BODY, secret)], SECRETS) == SignedBody(BODY, app)


def test_two_apps_with_one_secret_are_taken_for_the_first() -> None:
    assert verify(BODY, [sign(BODY)], [(3, Secret("first")), (1, Secret("first"))]) == SignedBody(BODY, 3)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_signed(body: bytes) -> None:
    assert verify(body, [sign(body)], SECRETS) == SignedBody(body, 1)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_body_with_one_bit_changed_is_refused(body: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(body) * 8 - 1))
    changed = bytearray(body)
    changed[place // 8] ^= 1 << place % 8
    assert verify(bytes(changed), [sign(body)], SECRETS) is None


def test_a_signature_with_any_one_bit_changed_is_refused() -> None:
    for place in range(len(sign(BODY)) * 8):
        changed = bytearray(sign(BODY))
        changed[place // 8] ^= 1 << place % 8
        assert verify(BODY, [bytes(changed)], SECRETS) is None, place


GOOD = sign(BODY)
DIGITS = GOOD.removeprefix(b"sha256=")
SHA1 = hmac.new(b"first", BODY, hashlib.sha1).hexdigest().encode()


@pytest.mark.parametrize(
    "signatures",
    [
        [],
        [b""],
        [b"sha256="],
        [DIGITS],
        [b"sha1=" + SHA1],
        [b"sha256=" + SHA1],
        [GOOD[:-1]],
        [GOOD + b"0"],
        [b"sha256=" + DIGITS.upper()],
        [b"SHA256=" + DIGITS],
        [b"sha256:" + DIGITS],
        [b"sha256=" + b"g" * 64],
        [b" " + GOOD],
        [GOOD + b" "],
        [GOOD + b"\n"],
        [b"sha256= " + DIGITS],
        [b"sha256=" + "é".encode() * 32],
        [b"sha256=" + b"\xff" * 64],
        [b"sha256=" + "\u0661".encode() * 64],
        [b"sha256=" + b"0" * 2**20],
        [GOOD, GOOD],
        [GOOD, b""],
        [b"", GOOD],
        [GOOD + b"," + GOOD],
        [GOOD + b", " + GOOD],
    ],
)
def test_anything_but_one_signature_in_githubs_spelling_is_none(signatures: list[bytes]) -> None:
    assert verify(BODY, signatures, SECRETS) is None


@pytest.mark.parametrize("secret", ["", "third", "First", "first ", "first\n"])
def test_another_secret_is_none(secret: str) -> None:
    assert verify(BODY, [sign(BODY, secret)], SECRETS) is None


def test_without_secrets_nothing_is_signed() -> None:
    assert verify(BODY, [GOOD], []) is None


# --- how secrets are compared, in every service -------------------------------------------------------

BYTES = {"encode", "digest", "to_bytes"}
"""Methods that give bytes."""
REVIEWED = {("keyring.py", name) for name in ("known[name]", "stored", "key.check_value")}
"""Bytes by their column's type and by HKDF."""


class Comparisons(ast.NodeVisitor):
    """Finds calls of ``compare_digest`` on what is not plainly bytes, and digests compared with ``==``."""

    def __init__(self) -> None:
        self.calls = 0
        self.wrong: list[str] = []
        self._known: dict[str, ast.expr] = {}

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._known[target.id] = node.value
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if _name(node.func) == "compare_digest":
            self.calls += 1
            self.wrong += [ast.unparse(each) for each in node.args if not self._is_bytes(each)]
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops):
            sides = [self._known.get(_name(each), each) for each in (node.left, *node.comparators)]
            if any("hmac." in ast.unparse(each) for each in sides):
                self.wrong.append(ast.unparse(node))
        self.generic_visit(node)

    def _is_bytes(self, value: ast.expr) -> bool:
        match value:
            case ast.Call(func=ast.Attribute(attr=method)):
                return method in BYTES
            case ast.Constant(value=bytes()):
                return True
            case ast.Subscript(value=ast.Name(id=match)):  # a group of a match of a pattern over bytes
                return "_FORM.fullmatch" in ast.unparse(self._known[match])
            case ast.Name(id=name):
                return name in self._known and self._is_bytes(self._known[name])
        return False


def _name(node: ast.expr) -> str:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def comparisons(source: str) -> Comparisons:
    found = Comparisons()
    found.visit(ast.parse(source))
    return found


def test_services_compare_digests_in_constant_time_and_as_bytes() -> None:
    calls, wrong = 0, []
    for package in (services, contracts):
        for file in Path(next(iter(package.__path__))).rglob("*.py"):
            found = comparisons(file.read_text())
            calls += found.calls
            wrong += [each for each in found.wrong if (file.name, each) not in REVIEWED]
    assert wrong == []
    assert calls >= 5  # the signature, the operator's token, Secret, the vault's keys twice


@pytest.mark.parametrize(
    "source",
    [
        "hmac.compare_digest(given, token)",
        "hmac.compare_digest(mac.hexdigest(), given.encode())",
        "compare_digest('a', b'a')",
        "hmac.digest(key, body, 'sha256') == given",
        "expected = hmac.new(key, body, 'sha256').hexdigest()\nif given != expected: pass",
    ],
)
def test_the_check_itself_finds_what_it_looks_for(source: str) -> None:
    assert comparisons(source).wrong
