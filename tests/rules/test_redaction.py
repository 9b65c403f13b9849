"""What people read has no secrets in it, and what a store keeps has their names."""

from __future__ import annotations

import base64
import copy
import io
import json
import logging
import pickle
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from rh_agents import Secret, StoreError, forget_secret, redact, register_secret, storable, tool
from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import UsageError
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.redaction import RedactingFilter, is_credential_name, register_found, registered_value
from rh_agents.core.redaction.described import short_repr
from rh_agents.core.results import ExecutionResult, describe_error
from rh_agents.core.values import (
    UnknownValue,
    decode,
    decode_error,
    encode,
    encode_error,
    keep_text,
    kept_text,
    shown_value,
)
from rh_agents.core.values.answers import given_answer, kept_answer
from rh_agents.core.values.inputs import canonical, canonical_arguments
from rh_agents.display.text import brief, harmless

VALUE = 'p@ss/wörd+"1\\x~?>?'


@pytest.fixture(autouse=True)
def secret() -> Iterator[Secret]:
    yield Secret("db", VALUE)
    forget_secret("db")


@storable
class Login(BaseModel):
    user: str
    password: Secret | None = None
    text: str = ""


# -- texts for people --------------------------------------------------------------------------------------------------

SPELT = {
    "as it is": VALUE,
    "in a URL": urllib.parse.quote(VALUE, safe=""),
    "in a form": urllib.parse.quote_plus(VALUE),
    "in base64": base64.b64encode(VALUE.encode()).decode(),
    "in base64 for URLs": base64.urlsafe_b64encode(VALUE.encode()).decode(),
    "in JSON": VALUE.replace("\\", "\\\\").replace('"', '\\"'),
    "in JSON of ASCII": json.dumps(VALUE)[1:-1],
    "in JSON within JSON": json.dumps(json.dumps(VALUE, ensure_ascii=False), ensure_ascii=False)[3:-3],
    "in JSON of ASCII within JSON": json.dumps(json.dumps(VALUE))[3:-3],
    "as Python writes it": repr(VALUE)[1:-1],
    "as Python writes it in ASCII": ascii(VALUE)[1:-1],
    "in a URL within a URL": urllib.parse.quote(urllib.parse.quote(VALUE, safe=""), safe=""),
}


@pytest.mark.parametrize("spelling", SPELT)
def test_a_registered_secret_is_taken_out_of_texts_however_it_is_spelt(spelling: str) -> None:
    assert redact(f"cannot connect with {SPELT[spelling]} today") == "cannot connect with <secret:db> today"


@pytest.mark.parametrize("user", ["", "a", "ab", "abc", "some.body"])
def test_a_secret_is_found_in_base64_wherever_it_begins(user: str) -> None:
    encoded = base64.b64encode(f"{user}:{VALUE}:more".encode()).decode()
    shown = redact(f"sent {encoded}.")
    assert "<secret:db>" in shown
    assert base64.b64encode(VALUE.encode()).decode()[4:-8] not in shown


SHAPES = {
    '{"password": "<secret:db>"}': '{"password": "<secret:db>"}',
    '{"password": "<secret:db> and more"}': '{"password": "***"}',
    "postgresql://me:hunter2@db.example/app": "postgresql://me:***@db.example/app",
    "redis://:hunter2@cache:6379": "redis://:***@cache:6379",
    "clone https://ghp_0123@github.com/x.git": "clone https://***@github.com/x.git",
    "GET /a?token=abc&x=1": "GET /a?token=***&x=1",
    "https://s3/x?X-Amz-Signature=0af&X-Amz-Date=1": "https://s3/x?X-Amz-Signature=***&X-Amz-Date=1",
    "/a?access_token=a.b-c#top": "/a?access_token=***#top",
    "Authorization: Bearer abcdef": "Authorization: Bearer ***",
    "{'authorization': 'Basic dTpw', 'x': 1}": "{'authorization': '***', 'x': 1}",
    "('Authorization', 'token-1')": "('Authorization', '***')",
    "x-api-key: abc": "x-api-key: ***",
    "sent bearer abcdefgh12 there": "sent bearer *** there",
    "Client(api_key='abc', retries=2)": "Client(api_key='***', retries=2)",
    '{"password": "a b"}': '{"password": "***"}',
    "PGPASSWORD=abc psql": "PGPASSWORD=*** psql",
    "Incorrect API key provided: sk-proj-0123456789abcdef.": "Incorrect API key provided: ***.",
    "jwt eyJhbGciOiJI.eyJzdWIiOiIx.abc-_d": "jwt ***",
}


@pytest.mark.parametrize("text", SHAPES)
def test_what_has_the_shape_of_a_credential_is_taken_out(text: str) -> None:
    assert redact(text) == SHAPES[text]
    assert redact(redact(text)) == SHAPES[text], "nothing is taken out twice"


@pytest.mark.parametrize(
    "text",
    [
        "ssh://git@example.org/x.git",
        "mail to me@example.org, key=value pairs, keyboard=1",
        "https://example.org/a?page=2&sort=asc",
        "KeyError: 'Atlantis'",
        "the password: at least 8 letters",
        "f(x)=1@2",
        "tokens=12 max_tokens=5",
        "basically bearer of bad news",
    ],
)
def test_what_only_looks_a_little_like_one_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "part",
    [
        "a-",
        "a.",
        "key=",
        "eyJ-",
        "token_",
        "secret-",
        "a+",
        "bearer ",
        "://a:",
        "http://",
        "?a_",
        "authorization: ",
        "x",
    ],
)
def test_a_long_text_takes_no_quadratic_time_whatever_stands_in_it(part: str) -> None:
    text = "'=: key://@ eyj sk- \"" + part * (100_000 // len(part)) + ":"
    begin = time.process_time()
    redact(text)
    assert time.process_time() - begin < 3, "it takes a tenth of a second, and quadratic time is most of a minute"


def test_a_password_with_an_at_sign_is_taken_out_of_a_url_as_a_whole() -> None:
    assert redact("no route to postgresql://app:p@ss@word@db/x") == "no route to postgresql://app:***@db/x"


def test_a_short_secret_is_not_looked_for_in_texts() -> None:
    try:
        assert Secret("pin", "1234").reveal() == "1234"
        assert redact("12345 items") == "12345 items"
    finally:
        forget_secret("pin")


def test_of_two_secrets_the_longer_one_is_found_first() -> None:
    register_secret("longer", VALUE + "-tail")
    try:
        assert redact(f"{VALUE}-tail {VALUE}") == "<secret:longer> <secret:db>"
        assert decode(encode(f"{VALUE}-tail")) == f"{VALUE}-tail"
    finally:
        forget_secret("longer")


def test_the_line_about_an_error_has_no_secret_in_it() -> None:
    assert describe_error(ValueError(f"bad login {VALUE}")) == "ValueError: bad login <secret:db>"
    assert describe_error(ValueError("no route to https://u:p@h/")) == "ValueError: no route to https://u:***@h/"


def test_a_filter_takes_secrets_out_of_messages_arguments_and_tracebacks() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    log = logging.getLogger("test_redaction")
    log.addHandler(handler)
    log.propagate = False
    try:
        try:
            raise OSError("https://u:p1@h") from ValueError(VALUE)
        except OSError:
            log.exception("with %s", VALUE)
    finally:
        log.removeHandler(handler)
    assert VALUE not in stream.getvalue()
    assert "p1@" not in stream.getvalue()
    assert stream.getvalue().startswith("with <secret:db>\n")
    assert "ValueError: <secret:db>" in stream.getvalue()


# -- values ------------------------------------------------------------------------------------------------------------

VALUES = {
    "text": f"Bearer {VALUE}",
    "alone": VALUE,
    "twice": VALUE + VALUE,
    "in a URL": f"https://x/?p={urllib.parse.quote(VALUE, safe='')}&q=1",
    "base64": base64.b64encode(VALUE.encode()).decode(),
    "JSON within JSON": json.dumps({"body": json.dumps({"password": VALUE})}),
    "text of an error": str(KeyError(VALUE)),
    "a URL within a URL": urllib.parse.quote(f"https://x/?p={urllib.parse.quote(VALUE, safe='')}", safe=""),
    "bytes": b"\xff" + VALUE.encode() + b"\x00",
    "bytearray": bytearray(VALUE.encode()),
    "list": [1, [VALUE, float("inf")]],
    "dict": {"a": {"b": VALUE}},
    "key of a dict": {VALUE: 1, "x": {VALUE: VALUE}},
    "set": {VALUE, "b"},
    "tuple": (VALUE,),
    "object": Secret("db", VALUE),
    "model": Login(user="u", password=Secret("db", VALUE), text=f"as {VALUE}"),
    "no UTF-8 beside it": f"\ud800{VALUE}",
}


@pytest.mark.parametrize("name", VALUES)
def test_what_is_stored_has_the_name_of_a_secret_and_what_is_read_the_secret(name: str) -> None:
    value = VALUES[name]
    data = encode(value)
    for spelt in SPELT.values():
        assert spelt.encode() not in data
    assert b'"db"' in data
    assert decode(data) == value
    assert type(decode(data)) is type(value)


@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_in_an_array_have_the_names_of_secrets_and_make_room_for_longer_ones(order: str) -> None:
    numpy = pytest.importorskip("numpy")
    for kind, encoding in (("U", "utf-32-le" if order == "<" else "utf-32-be"), ("S", "utf-8")):
        texts = [["a", VALUE], ["b", f"x{VALUE}"]]
        items = texts if kind == "U" else [[each.encode() for each in row] for row in texts]
        array = numpy.array(items).astype(f"{order}{kind}30")
        for value in (array, array[1, 1]):
            data = encode(value)
            assert base64.b64encode(VALUE.encode(encoding))[4:-4] not in data
            assert decode(data).dtype == value.dtype
            numpy.testing.assert_array_equal(decode(data), value)
        data = encode(array)
        Secret("db", "a-longer-one-" * 5)
        found = decode(data)[1, 1]
        assert (found if kind == "U" else found.decode()) == "x" + "a-longer-one-" * 5
        Secret("db", VALUE)


def test_a_changed_secret_is_put_back_as_it_is_now() -> None:
    data = encode({"header": f"Bearer {VALUE}", "password": Secret("db")})
    Secret("db", "another-one")
    assert decode(data) == {"header": "Bearer another-one", "password": Secret("db")}
    assert decode(data)["password"].reveal() == "another-one"


@pytest.mark.parametrize("value", [f"Bearer {VALUE}", Secret("db", VALUE), {"a": VALUE.encode()}])
def test_a_secret_that_is_not_registered_is_an_error_that_names_it(value: object) -> None:
    data = encode(value)
    forget_secret("db")
    with pytest.raises(StoreError, match=r"has the secret 'db' in it.*Secret\('db', value\)"):
        decode(data)


def test_who_only_looks_sees_the_name() -> None:
    data = encode({"a": f"Bearer {VALUE}", "b": Secret("db"), "c": VALUE.encode()})
    forget_secret("db")
    assert decode(data, unknown_ok=True) == {
        "a": "Bearer <secret:db>",
        "b": UnknownValue("Secret", "db"),
        "c": b"<secret:db>",
    }


def test_values_are_never_changed_by_their_shape() -> None:
    value = ["https://s3/x?X-Amz-Signature=0af", "postgresql://me:hunter2@db", "Authorization: Bearer abcdef"]
    assert (
        encode(value)
        == b'["https://s3/x?X-Amz-Signature=0af","postgresql://me:hunter2@db","Authorization: Bearer abcdef"]'
    )


def test_an_error_is_stored_with_references_and_read_with_its_own_text() -> None:
    error = ValueError(f"bad login {VALUE}", VALUE)
    error.__cause__ = KeyError(VALUE)
    error.add_note(f"tried {VALUE}")
    data = encode_error(error)
    for spelt in SPELT.values():
        assert spelt.encode() not in data
    again = decode_error(data)
    assert again.args == error.args
    assert str(again.__cause__) == str(error.__cause__)
    assert again.__notes__ == error.__notes__


class Locked(Exception):
    """Its attributes cannot be read, so only its text can be kept."""

    @property
    def __dict__(self) -> dict[str, object]:  # type: ignore[override]
        raise ValueError


def test_an_error_of_which_only_the_text_can_be_kept_is_stored_without_secrets() -> None:
    register_secret("plain", "plain-0123456789")
    try:
        data = encode_error(Locked("bad login plain-0123456789"))
    finally:
        forget_secret("plain")
    assert str(decode_error(data)) == "bad login <secret:plain>"


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_secret_is_in_keys_by_its_name_so_that_changing_it_costs_nothing() -> None:
    before = (
        canonical_arguments({"password": Secret("db"), "n": 1}),
        canonical([Login(user="u", password=Secret("db"))]),
    )
    Secret("db", "another-one")
    after = canonical_arguments({"password": Secret("db"), "n": 1}), canonical([Login(user="u", password=Secret("db"))])
    assert before == after
    assert canonical(Secret("db")) == b"('secret', 'db')"


# -- the object --------------------------------------------------------------------------------------------------------


def test_a_secret_shows_its_name_and_reveals_its_value() -> None:
    password = Secret("db")
    assert (str(password), repr(password), f"{password}") == ("<secret:db>", "Secret('db')", "<secret:db>")
    assert password.reveal() == VALUE
    assert password == Secret("db") != Secret("db2", "abcdefgh")
    assert {password: 1}[Secret("db")] == 1
    assert copy.deepcopy(password) is copy.copy(password) is password
    assert "pass" not in Login(user="u", password=password).model_dump_json().replace("password", "")
    forget_secret("db2")


def test_a_secret_reaches_a_worker_process_with_its_value() -> None:
    data = pickle.dumps(Secret("db"))
    forget_secret("db")
    assert pickle.loads(data).reveal() == VALUE


def test_a_secret_without_a_value_must_be_registered() -> None:
    with pytest.raises(UsageError, match="no secret 'api' is registered"):
        Secret("api")
    with pytest.raises(UsageError, match="not empty"):
        Secret("api", "")
    gone = Secret("db")
    forget_secret("db")
    with pytest.raises(UsageError, match="no longer registered"):
        gone.reveal()
    with pytest.raises(AttributeError, match="cannot be changed"):
        gone.name = "x"


def test_a_credential_that_is_found_gets_a_name_of_its_own_unless_it_is_a_placeholder() -> None:
    try:
        for value in ("key-number-1", "key-number-2", "key-number-2", "not-needed", "none", None):
            register_found("model", value)
        assert registered_value("model") == "key-number-1"
        assert registered_value("model (2)") == "key-number-2"
        assert registered_value("model (3)") is None
    finally:
        forget_secret("model")
        forget_secret("model (2)")


@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "api-key", "X-Api-Key", "Authorization", "DB_PASSWORD", "Cookie"])
def test_names_of_credentials_are_known(name: str) -> None:
    assert is_credential_name(name)


@pytest.mark.parametrize("name", ["PATH", "HOME", "KEYBOARD", "max_tokens", "Accept"])
def test_other_names_are_none(name: str) -> None:
    assert not is_credential_name(name)


# -- base64 of more than the secret ------------------------------------------------------------------------------------

TOKENS: dict[str, Callable[[str], str]] = {
    "HTTP Basic": lambda secret: "Basic " + base64.b64encode(f"user:{secret}".encode()).decode(),
    "no user": lambda secret: base64.b64encode(f":{secret}".encode()).decode(),
    "no padding": lambda secret: base64.b64encode(f"ab:{secret}:c".encode()).decode().rstrip("="),
    "for URLs": lambda secret: "x." + base64.urlsafe_b64encode(f"??>>{secret}~~".encode()).decode().rstrip("=") + ".y",
    "in a path": lambda secret: "/a/" + base64.b64encode(f"u:{secret}".encode()).decode() + "?b",
    "twice": lambda secret: base64.b64encode(f"u:{secret}:{secret}".encode()).decode(),
}


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("is_bytes", [False, True], ids=["text", "bytes"])
def test_base64_with_a_secret_in_it_is_stored_by_reference_and_comes_back_with_the_secret_of_today(
    kind: str, is_bytes: bool
) -> None:
    def token(secret: str) -> Any:
        return TOKENS[kind](secret).encode() if is_bytes else TOKENS[kind](secret)

    pad: Any = b"=" if is_bytes else "="
    for length in range(6, 12):
        secret = "s3cr+t/" * 3
        secret = secret[:length] + "é"
        Secret("db", secret)
        data = encode({"a": [token(secret)]})
        assert b'"db"' in data
        for offset in range(3):
            core = base64.b64encode(b"\0" * offset + secret.encode())[4:-4]
            assert len(core) < 4 or core not in data
        assert decode(data) == {"a": [token(secret)]}
        for other in ("another one", "x" * 30 + "ü"):
            Secret("db", other)
            # Of a length that needs no padding, nothing tells whether there would have been any.
            assert decode(data)["a"][0].replace(pad, pad[:0]) == token(other).replace(pad, pad[:0])


@pytest.mark.parametrize(
    "text", ["{form}", "{form}AAAA", "x{form}", "AA{form}/", "{form}=", "{form}_-", "{cut}", "a{cut}="]
)
def test_whatever_stands_around_it_a_text_comes_back_as_it_was(text: str) -> None:
    form = base64.b64encode(f"me:{VALUE}".encode()).decode().rstrip("=")
    value = text.format(form=form, cut=form[:-3])
    assert decode(encode(value)) == value


# -- answers, and texts about a run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [f'"{VALUE[:8]}"', "7", '{"a": [1.5, null]}', '"\\ud800"', ' {"!": "x"}'])
def test_an_answer_comes_back_as_it_was_given(answer: str) -> None:
    assert json.loads(given_answer(kept_answer(answer.encode()))) == json.loads(answer)


@pytest.mark.parametrize("answer", [b'"\\ud800"', b'{"a": "\\u0000"}', b"1e400"])
def test_an_answer_without_a_secret_is_kept_as_it_was_written(answer: bytes) -> None:
    assert kept_answer(answer) == answer


def test_an_answer_is_kept_without_the_secret_in_it() -> None:
    answer = json.dumps({"password": VALUE}).encode()
    kept = kept_answer(answer)
    assert not [spelling for spelling in SPELT.values() if spelling.encode() in kept]
    assert json.loads(given_answer(kept)) == {"password": VALUE}


def test_nobody_gets_a_secret_by_answering_with_a_reference_to_it() -> None:
    for answer in ({"!": "secret", "name": "db", "spelling": ""}, {"!": "answer", "v": {"!": "secret", "name": "db"}}):
        kept = kept_answer(json.dumps(answer, separators=(",", ":")).encode())
        assert json.loads(given_answer(kept)) == answer


@pytest.mark.parametrize("text", ["plain", VALUE, f"a {VALUE} b", '{"!":"secret","name":"db","spelling":""}', '{"!":1'])
def test_a_text_about_a_run_comes_back_as_it_was(text: str) -> None:
    kept = keep_text(text)
    assert VALUE not in kept
    assert kept_text(kept) == text
    forget_secret("db")
    assert kept_text(kept, unknown_ok=True) == text.replace(VALUE, "<secret:db>")


def test_a_stored_value_is_shown_with_the_names_of_secrets() -> None:
    value = {"a": Secret("db"), "b": f"x {VALUE}", "c": "Basic " + base64.b64encode(f"u:{VALUE}".encode()).decode()}
    shown = shown_value(encode(value))
    forget_secret("db")
    assert shown_value(encode({"d": 1})) == '{"d":1}'
    found = json.loads(shown)
    assert (found["a"], found["b"]) == ("<secret:db>", "x <secret:db>")
    assert "<secret:db>" in found["c"]


def test_what_is_cut_has_no_part_of_a_secret_in_it() -> None:
    secret = "Q" + "xyzw" * 12
    Secret("db", secret)
    event = ExecutionEvent(actor=BaseActor(name="a", handler=print), result="." * 180 + secret)
    shown = [
        event.detail,
        repr(event),
        str(event),
        repr(ExecutionResult(result=secret)),
        str(ExecutionResult(result=secret)),
        short_repr("." * 20 + secret),
        short_repr([secret + "." * 90, {secret: b"." * 10 + secret.encode()}]),
        brief("." * 60 + secret * 20),
        harmless("." * 180 + secret),
        harmless(secret * 8 + "." * 3 + secret, 40),
    ]
    assert [text for text in shown if "xyzw" in text] == []


def test_the_key_of_a_call_is_shown_in_its_events_though_it_looks_like_a_credential() -> None:
    @tool
    def look(item: int) -> int:
        return item

    event = ExecutionEvent(actor=look, key="1a" * 32, message="api_key='0123456789abcdef0123456789abcdef'")
    for text in (repr(event), str(event)):
        assert f"key='{event.key}'" in text
        assert "0123456789abcdef0123456789abcdef" not in text
