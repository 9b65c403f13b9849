"""How values, errors and inputs are written down, which classes may be, and what becomes of those that have changed."""

import asyncio
import dataclasses
import enum
import functools
import ipaddress
import json
import subprocess
import sys
import textwrap
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import IO, Annotated, Any, Generic, Literal, NamedTuple, NewType, Protocol, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, ConfigDict, HttpUrl, PostgresDsn, PrivateAttr, RootModel, TypeAdapter, ValidationError
from pydantic import dataclasses as pydantic_dataclasses
from typing_extensions import TypeAliasType, TypedDict

from rh_agents.core.actors import Injected
from rh_agents.core.errors import (
    CircuitOpenError,
    DefinitionError,
    GroupTimeout,
    RecordedError,
    RunAwaiting,
    StoreError,
    UnreadFailures,
    UnstorableError,
)
from rh_agents.core.results import ExecutionResult, describe_error
from rh_agents.core.values import (
    UnknownValue,
    check_annotation,
    decode,
    decode_error,
    encode,
    encode_error,
    learn,
    learn_function,
    storable,
)
from rh_agents.core.values.registry import register, shape_of

T = TypeVar("T")
HERE = __name__


@storable
class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


@storable
class Level(enum.IntEnum):
    LOW = 1


@storable
class Mood(enum.StrEnum):
    GOOD = "good"


@storable
class Access(enum.Flag):
    READ = 1
    WRITE = 2
    BOTH = 3


@storable
class Bits(enum.IntFlag):
    ONE = 1


@storable
class Slug(str):
    __slots__ = ()


class Kilo(int):
    """With an attribute of its own."""

    def __pos__(self) -> int:
        raise AssertionError


storable(Kilo)


@storable
class Blob(bytes):
    pass


@storable
class Pair(NamedTuple):
    left: Any
    right: Any = 0


Old: Any = storable(namedtuple("Old", "x y"))


@storable
@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0
    sum: Any = dataclasses.field(init=False, default=None)

    @functools.cached_property
    def far(self) -> bool:
        return True


@storable
@dataclasses.dataclass(frozen=True, slots=True)
class Spot:
    x: Any
    y: Any = 0


@storable
@dataclasses.dataclass
class Box(Generic[T]):
    content: T


@storable
@pydantic_dataclasses.dataclass(frozen=True)
class Checked:
    x: int
    tags: list[str] = dataclasses.field(default_factory=list)


@storable
class Page(BaseModel):
    url: Any
    title: str = ""
    links: set[str] = set()


@storable
class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    url: str


@storable
class Hidden(BaseModel):
    url: str
    _seen: Any = PrivateAttr(default=0)
    _unset: int = PrivateAttr()

    @functools.cached_property
    def host(self) -> str:
        return self.url


@storable
class Names(RootModel[list[str]]):
    _more: int = PrivateAttr(default=1)


@storable
class Envelope(BaseModel, Generic[T]):
    content: T


learn(Envelope[int] | Envelope[Page])


class Client:
    """No data."""


def seen_page() -> Page:
    page = Page(url="a")
    page.title = "A"
    return page


def used(model: Hidden) -> Hidden:
    model._seen = (1, 2)
    assert model.host
    return model


VALUES: list[Any] = [
    None, True, 1, -1, 2**64, 10**4299, 10**4300, -(10**9000), 1.0, -0.0, 5e-324, 1e300, float("inf"), float("-inf"),
    "", "é", "\0", "a\0b", "\ud800", "\ud83d\ude00", "\U0001f600", "NaN", "Infinity", "!", '"!"', "1" * 9000,
    [], [[]], [1, [2.5, None]], (), (1,), ((), []), {}, {"a": {"b": []}}, {"!": 1}, {"a": {"!": "set"}}, {"\ud800": 1},
    {1: "a", "1": "b"}, {True: 1}, {None: 1}, {(1, 2): [3]}, {"b": 1, "a": 2}, {1.5: {2: {3: 4}}}, {Slug("a"): 1},
    set(), {1, "a", None}, frozenset({(1, 2)}), b"", b"a\0", bytearray(b"ab"), 1 + 2j, complex("-infj"),
    Decimal("1.10"), Decimal("-0"), Decimal("-Infinity"), Fraction(1, 3), UUID(int=7), date(2026, 1, 2),
    time(3, 4, 5, 6, tzinfo=UTC),
    datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, 3, 4), timedelta(-1, 2, 3),  # noqa: DTZ001
    datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1), ZoneInfo("Europe/Berlin"), UTC,
    datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1, seconds=7))), timezone(timedelta(hours=-3), "there"),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1), "here")), time(1, 2, fold=1),
    TypeAdapter(datetime).validate_python("2026-01-02T03:04:05+02:00"),
    TypeAdapter(datetime).validate_python("2026-01-02T03:04:05Z"), deque([1, (2,)], maxlen=5), deque(),
    OrderedDict([("b", 1), ("a", (2,))]), Counter("aab"), Path("a/b"), PurePath(), PurePosixPath("//a"),
    PureWindowsPath("C:\\a"), PurePosixPath("a\udcff"), HttpUrl("https://a.b/c?d=é#f"),
    PostgresDsn("postgres://a:b@c,d:1/e"), ipaddress.ip_address("::1%eth0"), ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_interface("10.0.0.1/8"), Colour.RED, Colour.BLUE, Level.LOW, Mood.GOOD, Access(0), Access.READ,
    Access.BOTH, Bits(0), Bits(5), Bits(-2), Slug("é\ud800"), Kilo(3), Blob(b"a"), Pair((1,), 2), Old(1, {2}),
    Point(1, (2,)), Spot({1}, None), Box((1,)), Checked(1, ["a"]), Page(url="a"), Page(url=(1,), links={"a"}),
    seen_page(), Open.model_validate({"url": "a", "other": (1,), "!": 2}), Hidden(url="a"), used(Hidden(url="a")),
    Names(["a"]), Envelope[int](content=1), Envelope[Page](content=Page(url="b")), Envelope(content=1),
    {"pages": [Page(url="a"), (Spot(1),)]},
    ExecutionResult(result=(1,), name="a"), UnknownValue.__name__,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_with_its_type(value: Any) -> None:
    back = decode(encode(value))
    assert type(back) is type(value)
    assert back == value
    if not isinstance(value, int | set):
        assert repr(back) == repr(value)


DOCUMENTS: dict[str, Any] = {
    '{"a":[1,2.5,"é",null,true]}': {"a": [1, 2.5, "é", None, True]},
    '{"!":"tuple","v":[1,[2]]}': (1, [2]),
    '{"!":"dict","v":[[1,"a"],["b",2]]}': {1: "a", "b": 2},
    '{"!":"float","v":"inf"}': float("inf"),
    '{"!":"bytes","v":"YWI="}': b"ab",
    '{"!":"datetime","v":"2026-01-02T03:04:05+00:00"}': datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    '{"!":"path","class":"PurePosixPath","v":"a"}': PurePosixPath("a"),
    '{"!":"enum","class":"HERE.Colour","v":"RED"}': Colour.RED,
    '{"!":"flag","class":"HERE.Bits","v":["ONE"],"rest":4}': Bits(5),
    '{"!":"atom","class":"HERE.Slug","v":"a"}': Slug("a"),
    '{"!":"namedtuple","class":"HERE.Pair","v":{"left":1,"right":0}}': Pair(1),
    '{"!":"dataclass","class":"HERE.Spot","v":{"x":1,"y":0}}': Spot(1),
    '{"!":"model","class":"HERE.Open","v":{"url":"a"},"extra":{"b":1}}': Open(url="a", b=1),  # type: ignore[call-arg]
    '{"!":"model","class":"HERE.Page","v":{"url":"a","title":"","links":{"!":"set","v":[]}},"set":["url"]}': Page(
        url="a"
    ),
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_form_in_which_runs_on_disk_are_written_stays_as_it_is(document: str) -> None:
    data = document.replace("HERE", HERE).encode()
    assert encode(DOCUMENTS[document]) == data
    assert decode(data) == DOCUMENTS[document]


def test_what_is_read_is_no_part_of_anything_else() -> None:
    data = encode([b"a", bytearray(b"a"), [1]])
    assert decode(data) is not decode(data)


def test_nan_comes_back_as_nan() -> None:
    assert [str(each) for each in decode(encode([float("nan"), complex("nan+infj"), Decimal("sNaN7")]))] == [
        "nan",
        "(nan+infj)",
        "sNaN7",
    ]


def test_a_number_that_is_too_long_to_be_read_is_found_wherever_it_stands() -> None:
    for offset in range(90):
        value = ["." * offset, 10**4300, "text" * 1000]
        assert decode(encode(value)) == value


def test_what_is_not_a_field_of_an_instance_comes_back_with_it() -> None:
    point = Point(1)
    vars(point)["note"] = (1,)
    assert point.far
    kilo = Kilo(2)
    vars(kilo)["unit"] = "g"
    unset = object.__new__(Point)
    unset.x = 1
    back = decode(encode([point, kilo, Box[int](1), unset, used(Hidden(url="a"))]))
    assert vars(back[0]) == {"x": 1, "y": 0, "note": (1,)}, "without what can be computed again"
    assert back[1].unit == "g"
    assert back[2] == Box(1)
    assert vars(back[3]) == {"x": 1}
    assert back[4]._seen == (1, 2)
    assert "host" not in vars(back[4])


def test_a_model_remembers_which_of_its_fields_were_set() -> None:
    back = decode(encode([Page(url="a"), Page(url="a", title="")]))
    assert [page.model_fields_set for page in back] == [{"url"}, {"url", "title"}]
    assert back[0].model_dump(exclude_unset=True) == {"url": "a"}


def test_a_model_that_came_back_can_be_used_like_any_other() -> None:
    back = decode(encode(Open(url="a", b=1)))  # type: ignore[call-arg]
    assert back.b == 1
    assert back.model_copy(update={"url": "c"}).model_dump() == {"url": "c", "b": 1}
    assert decode(encode(Names(["a"]))).model_dump() == ["a"]
    assert decode(encode(Hidden(url="a")))._seen == 0


def test_arrays_come_back_if_numpy_is_there() -> None:
    numpy = pytest.importorskip("numpy")
    arrays = [
        numpy.arange(6, dtype=">i2").reshape(2, 3), numpy.array(1.5), numpy.zeros((0, 3)), numpy.array(["é", ""]),
        numpy.array([True]), numpy.array(["2026-01-02"], "M8[D]"), numpy.asfortranarray(numpy.eye(2))[::-1],
        numpy.array([b"a"]), numpy.array([""]), numpy.array([1 + 2j], "c8"), numpy.array([7], "m8[25s]"),
    ]  # fmt: skip
    scalars = [
        numpy.float64(1.5),
        numpy.int8(-1),
        numpy.bool_(True),
        numpy.str_("é"),
        numpy.str_(""),
        numpy.datetime64(1, "s"),
    ]
    back = decode(encode({"arrays": arrays, "scalars": scalars}))
    for one, other in zip(back["arrays"], arrays, strict=True):
        assert (one.dtype, one.shape, one.tolist()) == (other.dtype, other.shape, other.tolist())
        assert one.flags.writeable
    for one, other in zip(back["scalars"], scalars, strict=True):
        assert type(one) is type(other)
        assert one == other
    for refused in (numpy.array([object()]), numpy.zeros(1, "i4,f8"), numpy.ma.array([1])):
        with pytest.raises(UnstorableError, match=r"a numpy\.\S+ at \['a'\] cannot be stored"):
            encode({"a": refused})


def test_nothing_is_imported_for_values_that_do_not_need_it() -> None:
    code = "import sys; from rh_agents.core.values import *; decode(encode({1: (2,)})); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "rh_agents.core.values" in loaded
    assert "numpy" not in loaded


# -- what is no data ---------------------------------------------------------------------------------------------------


class Stranger(BaseModel):
    url: str


class DerivedPage(Page):
    pass


class Pages(list[Page]):
    pass


@dataclasses.dataclass
class Failed(Exception):
    """A dataclass, and made of more than its fields."""

    code: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Client(), "a HERE.Client cannot be stored: return data"),
        ({"a": [1, Client()]}, "a HERE.Client at ['a'][1] cannot be stored: return data"),
        (Page(url=(Client(),)), "a HERE.Client at .url[0] cannot be stored"),
        ({"pages": [0, 1, 2, Point(Client())]}, "a HERE.Client at ['pages'][3].x cannot be stored"),
        ({1: Client()}, "a HERE.Client at [1] cannot be stored"),
        (used(Hidden(url="a")).model_copy(update={"url": Client()}), "a HERE.Client at .url cannot be stored"),
        ({(Client(),)}, "a HERE.Client at [0][0] cannot be stored"),
        (Stranger(url="a"), "a HERE.Stranger cannot be stored: annotate the function's return type with its class, or"),
        ([DerivedPage(url="a")], "a HERE.DerivedPage at [0] cannot be stored: annotate"),
        (Pages(), "a HERE.Pages cannot be stored: return data"),
        (defaultdict(list), "a collections.defaultdict cannot be stored"),
        (print, "a builtins.builtin_function_or_method cannot be stored"),
        (Client, "a builtins.type cannot be stored"),
        (iter([]), "a builtins.list_iterator cannot be stored"),
        (threading.Lock(), "a _thread.lock cannot be stored"),
        (memoryview(b"a"), "a builtins.memoryview cannot be stored"),
        (object(), "a builtins.object cannot be stored"),
        (datetime(2026, 1, 1, tzinfo=type("Zone", (tzinfo,), {})()), "a HERE.Zone cannot be stored"),
    ],
)
def test_what_is_no_data_is_refused_with_its_type_its_place_and_the_remedy(value: Any, text: str) -> None:
    with pytest.raises(UnstorableError) as caught:
        encode(value)
    assert str(caught.value).startswith(text.replace("HERE", HERE))


def test_a_value_that_fails_when_it_is_looked_at_is_refused() -> None:
    with pytest.raises(UnstorableError, match=r"a \S+Open cannot be stored: AttributeError: "):
        encode(object.__new__(Open))


def test_a_private_attribute_that_is_no_data_is_not_lost_silently() -> None:
    model = Hidden(url="a")
    model._seen = threading.Lock()
    with pytest.raises(UnstorableError, match=r"a _thread\.lock at \._seen cannot be stored"):
        encode(model)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_what_is_nested_too_deeply_to_be_read_is_refused_when_it_is_written() -> None:
    assert decode(encode(nested(190))) == nested(190)
    tuples: Any = ()
    for _ in range(90):
        tuples = (tuples,)
    assert decode(encode(tuples)) == tuples
    for value in (nested(191), nested(5000), (nested(189),)):
        with pytest.raises(UnstorableError, match="nested more than 190 levels deep"):
            encode(value)


def test_what_contains_itself_is_refused_at_once() -> None:
    loop: list[Any] = []
    loop += [loop, loop]
    with pytest.raises(UnstorableError, match="contains itself"):
        encode({"a": loop})


# -- classes -----------------------------------------------------------------------------------------------------------


def test_an_annotation_makes_the_classes_in_it_known_at_any_depth() -> None:
    @dataclasses.dataclass
    class Leaf:
        x: int

    class Kind(enum.Enum):
        A = 1

    class Item(BaseModel):
        leaf: "list[Leaf] | None" = None
        kinds: dict[Kind, "tuple[Leaf, ...]"] = {}

    class Row(TypedDict):
        item: Item

    class Both(NamedTuple):
        row: Row

    class Unrelated(BaseModel):
        pass

    Item.model_rebuild()
    learn(Callable[[int], list[Both]])
    assert shape_of(Unrelated) is None
    value = Both({"item": Item(leaf=[Leaf(1)], kinds={Kind.A: (Leaf(2),)})})
    assert decode(encode(value)) == value


class Aliased(BaseModel):
    pass


Alias = TypeAliasType("Alias", dict[str, Annotated[Aliased, "text"]])


class Bound(BaseModel):
    pass


BoundT = TypeVar("BoundT", bound=Bound)


class Sign(enum.Enum):
    PLUS = 1


class Argument(BaseModel):
    pass


@dataclasses.dataclass
class Holder(Generic[T]):
    content: T


class HolderOfArguments(Holder[Argument]):
    pass


class Chain(BaseModel):
    next: "Chain | None" = None
    _private: "Secret | None" = PrivateAttr(default=None)


class Secret(BaseModel):
    pass


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Secret]


@pytest.mark.parametrize(
    ("hint", "classes"),
    [
        (Alias, [Aliased]),
        (NewType("Name", Aliased), [Aliased]),
        (BoundT, [Bound]),
        (Literal[Sign.PLUS], [Sign]),
        (Annotated[list[Annotated[Aliased, "text"]], "text"], [Aliased]),
        (Holder[Argument], [Holder, Argument]),
        (HolderOfArguments, [HolderOfArguments, Argument]),
        (Envelope[Aliased], [Envelope[Aliased], Envelope, Aliased]),
        (type[Aliased] | Mapping[str, Sequence[Bound]] | None, [Aliased, Bound]),
        (Chain, [Chain, Secret]),
        (Extra, [Extra, Secret]),
        (Slug, [Slug]),
    ],
)
def test_every_kind_of_annotation_is_understood(
    hint: Any, classes: list[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rh_agents.core.values.registry._shapes", {})
    learn(hint)
    assert all(shape_of(cls) for cls in classes)
    assert shape_of(Page) is None, "nothing else is"


def test_a_class_that_is_defined_after_the_annotation_that_names_it_is_known_when_it_is_met() -> None:
    survey = dataclasses.make_dataclass("Survey", [("pages", "list[LateClass] | None"), ("other", "Nobody | None")])
    survey.__module__ = HERE
    learn(survey)
    late = dataclasses.make_dataclass("LateClass", ["x"])
    late.__module__ = HERE
    globals()["LateClass"] = late
    try:
        value = survey([late(1)], None)
        assert decode(encode(value)) == value
    finally:
        del globals()["LateClass"]


def test_the_hints_of_a_function_or_of_its_parameters_are_understood() -> None:
    class Given(BaseModel):
        pass

    class Returned(BaseModel):
        pass

    def fetch(a: list[Given], client: Annotated[Client, Injected]) -> Returned:
        return Returned()

    learn_function(fetch)
    assert decode(encode([Given(), Returned()])) == [Given(), Returned()]
    assert shape_of(Client) is None


def test_models_of_equally_named_parameters_are_different_classes() -> None:
    class Page(BaseModel):
        __module__ = "elsewhere"
        __qualname__ = "Page"

    other = globals()["Page"]
    learn(Envelope[Page] | Envelope[other])  # type: ignore[valid-type]
    assert Envelope[Page].__qualname__ == Envelope[other].__qualname__  # type: ignore[valid-type]
    assert type(decode(encode(Envelope[Page](content=Page())))) is Envelope[Page]
    assert type(decode(encode(Envelope[other](content=other(url="a"))))) is Envelope[other]  # type: ignore[valid-type]


def test_of_two_classes_of_one_name_the_last_one_counts() -> None:
    def define(extra: Any) -> type:
        cls = dataclasses.make_dataclass("Cell", [("x", int)], namespace={"extra": extra})
        cls.__module__ = HERE
        return storable(cls)

    first, second = define(1), define(2)
    assert type(decode(encode(first(1)))) is second
    assert type(decode(encode(second(1)))) is second


@pytest.mark.parametrize("cls", [Client, dict, BaseModel, Pages, Failed, defaultdict, int])
def test_a_class_that_cannot_be_stored_is_refused_where_it_is_decorated(cls: type) -> None:
    with pytest.raises(DefinitionError, match="cannot be stored: only enums, dataclasses"):
        storable(cls)
    assert not register(cls)


def test_the_classes_of_a_script_are_those_of_the_module_that_it_is_when_imported(tmp_path: Path) -> None:
    script = tmp_path / "survey.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            from dataclasses import dataclass
            from rh_agents.core.values import decode, decode_error, encode, encode_error, storable

            @storable
            @dataclass
            class Page:
                url: str

            class Refused(Exception):
                pass

            if __name__ == "__main__":
                for data in sys.argv[1:]:
                    assert decode(data.encode()) == Page("a")
                import survey  # both are loaded now; the script's own classes count
                assert type(decode(encode(Page("a")))) is Page
                assert type(decode_error(encode_error(Refused()))) is Refused
                print(encode(Page("a")).decode())
        """)
    )

    def execute(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    root = Path(__file__).parents[2]
    (tmp_path / "rh_agents").symlink_to(root / "rh_agents")
    written = execute("survey.py")
    assert '"survey.Page"' in written
    assert execute("-m", "survey", written) == written
    assert execute("-c", f"import survey; print(survey.decode({written!r}.encode()))") == "Page(url='a')"


# -- classes that have changed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ('{"!":"dataclass","class":"HERE.Spot","v":{"x":1}}', "had the fields x and has x, y now; raise the actor's"),
        ('{"!":"dataclass","class":"HERE.Spot","v":{"x":1,"y":2,"z":3}}', "had the fields x, y, z and has x, y now"),
        ('{"!":"model","class":"HERE.Page","v":{"url":""}}', "had the fields url and has links, title, url now"),
        ('{"!":"namedtuple","class":"HERE.Pair","v":{"left":1}}', "had the fields left and has left, right now"),
        ('{"!":"enum","class":"HERE.Colour","v":"GREEN"}', "had a member 'GREEN' and has none of this name now"),
        ('{"!":"flag","class":"HERE.Access","v":["READ"],"rest":8}', "has no member 9 now"),
        ('{"!":"model","class":"HERE.Spot","v":{"x":1,"y":2}}', "was a model and is a dataclass now"),
        ('{"!":"atom","class":"HERE.Slug","v":1}', "was derived from int and is from str now"),
        ('{"!":"dataclass","class":"HERE.Spot","v":{"x":1,"y":2},"more":{"z":3}}', "had z, for which it has no field"),
        ('{"!":"model","class":"HERE.Hidden","v":{"url":""},"private":{}}', "had the private attributes none and"),
        ('{"!":"model","class":"HERE.Hidden","v":{"url":""},"private":{"_seen":1,"_x":1}}',
        "had the private attributes _"),
        ('{"!":"dataclass","class":"HERE.Gone","v":{"x":1}}', "is not known to this program: import its module, or"),
    ],
)  # fmt: skip
def test_a_class_that_has_changed_is_named_with_what_has_and_with_the_remedy(document: str, text: str) -> None:
    data = document.replace("HERE", HERE).encode()
    with pytest.raises(StoreError) as caught:
        decode(data)
    name = json.loads(data)["class"]
    assert str(caught.value).startswith(f"a recorded value is a {name}, which {text}")
    assert isinstance(decode(data, unknown_ok=True), UnknownValue)


def test_a_value_of_an_unknown_class_can_be_shown() -> None:
    data = b'{"!":"set","v":[{"!":"model","class":"gone.Page","v":{"url":{"!":"tuple","v":[1]}}}]}'
    (value,) = decode(data, unknown_ok=True)
    assert value == UnknownValue("gone.Page", {"url": (1,)})
    assert repr(value) == "<gone.Page {'url': (1,)}>"
    with pytest.raises(StoreError):
        decode(data)


@pytest.mark.parametrize(
    "document", ['{"!":"model","class":"HERE.Spot","v":{"x":', '{"!":"dataclass","class":"HERE.Spot","v":{"x":']
)
def test_values_of_changed_classes_that_hold_each_other_are_shown_in_no_time(document: str) -> None:
    data = document.replace("HERE", HERE) * 90 + "1" + "}}" * 90
    value = decode(data.encode(), unknown_ok=True)
    for _ in range(90):
        value = value.data["x"]
    assert value == 1


def test_reading_runs_no_code_of_a_class() -> None:
    code: list[str] = []

    def note(self: Any, *_: Any, **__: Any) -> Any:
        code.append(type(self).__name__)
        raise AssertionError

    class Model(BaseModel):
        x: int
        _private: int = PrivateAttr(default_factory=lambda: 1)

    @dataclasses.dataclass
    class Data:
        x: int

    @dataclasses.dataclass(slots=True)
    class Slots:
        x: int

    class Names(NamedTuple):
        x: int

    class Text(str):
        pass

    class Kind(enum.Enum):
        A = 1

    class Flags(enum.Flag):
        A = 1
        B = 2

    class Refused(Exception):
        pass

    for cls in (Model, Data, Slots, Names, Text, Kind, Flags):
        register(cls)
    value = [Model(x=1), Data(1), Slots(1), Names(1), Text("a"), Kind.A, Flags.A]
    refused = Refused("a")
    refused.add_note("b")
    vars(refused)["code"] = 1
    data = encode([*value, refused])
    more = data.replace(b'"A"', b'"A","B"').replace(b'"v":"A","B"', b'"v":"A"')
    classes: list[type] = [Model, Data, Slots, Names, Text, Kind, Flags, Refused]
    for each in classes:
        own = ("_missing_",) if issubclass(each, enum.Enum) else ("__setattr__", "__getattribute__", "__setstate__")
        for name in ("__init__", "__new__", "__post_init__", *own):
            type.__setattr__(each, name, note)
    read = decode(more)
    assert code == []
    assert list(map(type, read)) == classes


def test_a_value_that_a_validator_would_refuse_now_is_returned_as_it_was_recorded() -> None:
    page = Page.model_construct(url="a", title=3, links=None)
    assert decode(encode(page)).title == 3


@pytest.mark.parametrize(
    "document",
    ["", "[", "{", "1 2", "nul", '"\\ud800"', '{"!":"nothing"}', '{"!":1}', '{"!":"set","v":1}', '{"!":"tuple"}',
     '{"!":"set","v":[[]]}', '{"!":"dict","v":["ab"]}', '{"!":"bytes","v":"?"}', '{"!":"datetime","v":"yesterday"}',
     '{"!":"ZoneInfo","v":"../../etc/passwd"}', '{"!":"ZoneInfo","v":"America"}', '{"!":"ZoneInfo","v":"No/Where"}',
     '{"!":"url","class":"BaseModel","v":"a"}', '{"!":"url","class":"TypeAdapter","v":"int"}',
     '{"!":"address","class":"ip_address","v":"::1"}', '{"!":"ndarray","dtype":"i4,f4","shape":[1],"v":"AAAAAAAAAAA="}',
     '{"!":"url","class":"HttpUrl","v":"a"}', '{"!":"Decimal","v":"a"}',
     '{"!":"address","class":"Client","v":"a"}', '{"!":"path","class":"Client","v":"a"}', '{"!":"complex","v":[1]}',
     '{"!":"ndarray","dtype":"|O8","shape":[1],"v":""}', '{"!":"int","v":"g"}', '{"!":"float","v":"1"}',
     '{"!":"model","class":1,"v":{}}', '{"!":"model","class":"HERE.Page","v":[]}', '{"!":"deque","v":[],"maxlen":-1}'],
)  # fmt: skip
def test_damage_is_a_store_error(document: str) -> None:
    with pytest.raises(StoreError):
        decode(document.replace("HERE", HERE).encode())


# -- errors ------------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """As clients raise it: with a constructor that wants more than the text, and attributes that are no data."""

    def __init__(self, *, status_code: int, response: Any) -> None:
        super().__init__(f"refused with {status_code}")
        self.status_code = status_code
        self.response = response

    @property
    def retry(self) -> bool:
        return self.status_code == 429


class Quiet(Exception):
    def __new__(cls, *_: Any) -> "Quiet":
        return super().__new__(cls)

    def __init__(self, code: int) -> None:
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class AboutClient(Exception):
    def __init__(self, client: Client) -> None:
        self.client = client

    def __str__(self) -> str:
        return f"{self.client.__class__.__name__} is down"


class InSlots(OSError):
    __slots__ = ("code",)
    code: Any


def slotted() -> InSlots:
    error = InSlots(2, "gone")
    error.code = (1,)
    return error


ERRORS: list[Exception] = [
    ValueError("a"), ValueError(), ValueError("a", 1, (2,)), KeyError("k"), KeyError(("a", 1)),
    OSError(2, "gone", "file"), OSError("a"), OSError(2, "gone", "file", None, "other"),
    ConnectionResetError(104, "reset"), TimeoutError("slow"),
    UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "bad"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "bad"),
    StopIteration(3), ImportError("a", name="b", path="c"), SyntaxError("a", ("f.py", 1, 2, "text", 1, 3)),
    AttributeError("a", name="b"), json.JSONDecodeError("a", "doc", 2), Quiet(3), slotted(),
    asyncio.InvalidStateError("a"), asyncio.IncompleteReadError(b"ab", 4), DefinitionError("a"),
    CircuitOpenError("a", retry_in=2.5),
    RunAwaiting("a", run_id="r", reason="w", questions=["q"]), RecordedError("a", kind="Gone"), ValueError("\ud800"),
    subprocess.CalledProcessError(3, ["ls"], b"out"), UnicodeError("a"), LookupError(float("nan")),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_with_its_class_its_text_and_its_attributes(error: Exception) -> None:
    back = decode_error(encode_error(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert repr(back) == repr(error)
    assert describe_error(back) == describe_error(error)
    assert str(vars(back)) == str(vars(error))
    for name in (
        "errno",
        "strerror",
        "filename",
        "filename2",
        "start",
        "object",
        "value",
        "name",
        "lineno",
        "code",
        "args",
    ):
        assert str(getattr(back, name, None)) == str(getattr(error, name, None))
    assert not hasattr(back, "__notes__")


def test_attributes_that_are_no_data_are_left_out() -> None:
    back = decode_error(encode_error(Refused(status_code=429, response=Client())))
    assert isinstance(back, Refused)
    assert back.retry
    assert str(back) == "refused with 429"
    assert not hasattr(back, "response")


def test_arguments_that_are_no_data_leave_the_text() -> None:
    client = Client()
    back = decode_error(encode_error(ValueError(client)))
    assert type(back) is ValueError
    assert str(back) == str(client)


def test_an_error_that_can_no_longer_tell_its_text_keeps_its_class_and_notes_the_text() -> None:
    back = decode_error(encode_error(AboutClient(Client())))
    assert isinstance(back, AboutClient)
    assert back.__notes__ == ["when it was recorded, it read: Client is down"]


def test_an_error_without_a_text_is_recorded() -> None:
    assert type(decode_error(encode_error(Broken()))) is Broken


def test_notes_and_causes_come_back() -> None:
    cause = KeyError("k")
    cause.__cause__ = Quiet(1)
    error = ValueError("a")
    error.__cause__ = cause
    error.add_note("b")
    hidden = ValueError("a")
    hidden.__cause__ = None
    back, back_hidden = decode_error(encode_error(error)), decode_error(encode_error(hidden))
    assert back.__notes__ == ["b"]
    assert isinstance(back.__cause__, KeyError)
    assert isinstance(back.__cause__.__cause__, Quiet)
    assert back.__suppress_context__
    assert back_hidden.__suppress_context__
    assert not decode_error(encode_error(ValueError())).__suppress_context__


def test_a_group_of_errors_comes_back_with_its_members() -> None:
    for group in (
        ExceptionGroup("a", [ValueError("b"), ExceptionGroup("c", [Quiet(1)])]),
        UnreadFailures("a", [Quiet(2)]),
    ):
        back = decode_error(encode_error(group))
        assert type(back) is type(group)
        assert repr(back) == repr(group)
        assert str(back) == str(group)
        assert isinstance(back, ExceptionGroup)
        assert back.subgroup(Quiet) is not None
        assert encode_error(group).count(b"Quiet") == 1, "each is written once"


def test_the_results_in_an_error_are_left_out_because_they_have_been_recorded() -> None:
    error = GroupTimeout("slow", group="pages", results=[ExecutionResult(result="x" * 1000)])
    data = encode_error(error)
    back = decode_error(data)
    assert isinstance(back, GroupTimeout)
    assert (back.group, back.results) == ("pages", ())
    assert len(data) < 300


def gone(kind: type[Exception], name: str, text: str) -> bytes:
    return encode_error(kind(text)).replace(kind.__name__.encode(), name.encode())


def test_an_error_of_a_class_that_is_not_loaded_reads_like_the_original() -> None:
    back = decode_error(gone(Refused_, "Vanished", "no more"))
    assert isinstance(back, RecordedError)
    assert back.kind == "Vanished"
    assert str(back) == "no more"
    assert describe_error(back) == "Vanished: no more"
    again = decode_error(encode_error(back))
    assert isinstance(again, RecordedError)
    assert describe_error(again) == "Vanished: no more"


class Refused_(Exception):
    """With a name that no other class has."""


def test_nothing_is_imported_to_find_the_class_of_an_error() -> None:
    data = b'{"!":"error","module":"this","class":"Error","text":"a"}'
    assert isinstance(decode_error(data), RecordedError)
    assert "this" not in sys.modules


@pytest.mark.parametrize("name", ["Client", "Exception.__new__", "print", "SystemExit", "<locals>.a"])
def test_only_classes_of_errors_are_made_into_errors(name: str) -> None:
    for module in (HERE, "builtins"):
        data = json.dumps({"!": "error", "module": module, "class": name, "text": "a"}).encode()
        assert isinstance(decode_error(data), RecordedError)


def test_a_class_in_a_function_is_found_while_it_exists() -> None:
    class Local(Exception):
        pass

    assert type(decode_error(encode_error(Local("a")))) is Local


def test_an_error_that_is_made_outside_of_python_keeps_its_kind_and_text() -> None:
    with pytest.raises(ValidationError) as caught:
        Checked("a")  # type: ignore[arg-type]
    back = decode_error(encode_error(caught.value))
    assert isinstance(back, RecordedError)
    assert describe_error(back) == describe_error(caught.value)


def test_an_error_that_holds_itself_is_recorded_without_that() -> None:
    error, other = Refused(status_code=1, response=None), Refused(status_code=2, response=None)
    error.response = [error, other]
    other.response = [error, other]
    other.__cause__ = error
    error.__cause__ = other
    back = decode_error(encode_error(error))
    assert isinstance(back, Refused)
    assert back.status_code == 1
    assert isinstance(back.__cause__, Refused)


def test_errors_that_name_each_other_many_times_over_are_recorded_in_no_time() -> None:
    error = Refused(status_code=0, response=None)
    for number in range(40):
        above = Refused(status_code=number, response=error)
        above.__cause__ = error
        error = above
    back = decode_error(encode_error(error))
    assert isinstance(back, Refused)
    assert back.status_code == 39
    results: list[ExecutionResult[Any]] = [ExecutionResult(ok=False, error=KeyError(number)) for number in range(3000)]
    assert [each.error.args for each in decode(encode(results))] == [(number,) for number in range(3000)]


def test_arguments_that_do_not_like_to_be_compared_are_no_obstacle() -> None:
    class Vain:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        __hash__ = None  # type: ignore[assignment]

    error = ValueError(Vain())
    error.add_note("a")
    assert decode_error(encode_error(error)).__notes__ == ["a"]


def test_a_chain_of_causes_of_any_length_is_recorded() -> None:
    error = ValueError("0")
    for number in range(1, 3000):
        above = ValueError(str(number))
        above.__cause__ = error
        error = above
    back = decode_error(encode_error(error))
    assert str(back) == "2999"
    assert str(back.__cause__) == "2998"


def test_an_error_can_stand_in_a_value() -> None:
    results = [ExecutionResult(ok=False, error=KeyError("k"), error_message="KeyError: 'k'"), ExecutionResult(result=1)]
    back = decode(encode(results))
    assert back[1] == results[1]
    assert repr(back[0].error) == "KeyError('k')"


def test_a_recorded_error_that_is_none_is_damaged() -> None:
    with pytest.raises(StoreError, match="a recorded error is damaged: it is a list"):
        decode_error(b"[]")


# -- annotations -------------------------------------------------------------------------------------------------------


class Shape:
    """Has a subclass that is data."""


@dataclasses.dataclass
class Circle(Shape):
    radius: float


class Drawable(Protocol):
    pass


class Connected(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    client: Client


class Maybe(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    client: Client | None = None
    parent: "Maybe | None" = None


@pytest.mark.parametrize(
    "hint",
    [None, Any, object, int, str | None, list[Page], dict[str, list[Page]], tuple[int, ...], T, Page, Point, Pair,
     Colour, Slug, Box[int], Envelope[Page], Names, Drawable, Shape, Circle, Client | None, Maybe, Chain, Path, UUID,
     Sequence[Page], datetime, Decimal, Literal["a"], Exception, ExecutionResult[Page], Annotated[Client, Injected],
     "Unknown", Alias,
     HttpUrl, ipaddress.IPv4Address, list, Annotated[Page, "text"], TypeVar("T", bound=Client), bool,
     deque[int], Counter[str], frozenset[str], timedelta, tzinfo, bytes, complex, Mapping[str, Any], ZoneInfo,
     NewType("Id", str)],
)  # fmt: skip
def test_nothing_is_said_against_an_annotation_whose_values_can_be_stored(hint: Any) -> None:
    assert check_annotation(hint) is None


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (Client, "a HERE.Client is not data"),
        (list[Client], "a HERE.Client is not data"),
        (dict[str, list[Client]], "a HERE.Client is not data"),
        (Client | threading.Thread, "a HERE.Client is not data"),
        (Connected, "`client` of a HERE.Connected cannot be stored: a HERE.Client is not data"),
        (tuple[int, Connected], "`client` of a HERE.Connected cannot be stored: a HERE.Client is not data"),
        (Iterator[int], "a collections.abc.Iterator gives its values once"),
        (AsyncIterator[int], "a collections.abc.AsyncIterator gives its values once"),
        (Callable[[int], str], "a function is not data"),
        (type[Page], "a class is not data"),
        (type(sys), "a builtins.module is not data"),
        (IO[str], "a typing.IO is not data"),
        (print, "print is no type"),
        (asyncio.Task[int], "gives its values once"),
        (defaultdict[str, int], "a defaultdict has a function in it"),
        (Pages, "a HERE.Pages is not data"),
        (NewType("Handle", Client), "a HERE.Client is not data"),
    ],
)
def test_an_annotation_whose_values_can_never_be_stored_is_told_with_the_reason(hint: Any, text: str) -> None:
    assert text.replace("HERE", HERE) in (check_annotation(hint) or "")


def test_arrays_are_data() -> None:
    numpy = pytest.importorskip("numpy")
    assert check_annotation(numpy.ndarray) is None
    assert check_annotation(list.__class_getitem__(numpy.float64)) is None
