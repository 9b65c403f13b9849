"""What models are asked and what they answer, in the words of no particular provider. All of it is data."""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import to_json

from rh_agents.core.chat.histories import own_form
from rh_agents.core.errors import InputError
from rh_agents.core.ports.streaming import Piece, PieceKind
from rh_agents.core.redaction.described import short_repr
from rh_agents.core.usage import Usage

__all__ = [
    "CallSettings",
    "ChatDelta",
    "ChatRequest",
    "ChatResponse",
    "Content",
    "DocumentPart",
    "FinishReason",
    "ImagePart",
    "Message",
    "Said",
    "TextPart",
    "ToolCall",
    "ToolSpec",
    "messages_of",
    "pieces_of",
    "text_of",
]


_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")


class _Data(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True, frozen=True, extra="forbid")


class TextPart(_Data):
    """A piece of text in a message that has other pieces as well."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(_Data):
    """An image in a message: its URL, which may be a `data:` URL."""

    type: Literal["image"] = "image"
    url: str
    detail: Literal["auto", "low", "high"] | None = None

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str = "image/png") -> ImagePart:
        """An image that is sent with the message."""
        return cls(url=f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}")

    @classmethod
    def from_file(cls, path: str | Path) -> ImagePart:
        """An image file that is sent with the message.

        Raises:
            OSError: it cannot be read.
            ValueError: its name does not tell what kind of image it is.
        """
        kind, _ = mimetypes.guess_type(str(path))
        if kind is None or not kind.startswith("image/"):
            raise ValueError(f"{path}: the end of its name is not that of an image, such as .png")
        return cls.from_bytes(Path(path).read_bytes(), kind)


class DocumentPart(_Data):
    """A document in a message, such as a PDF file or a text file: its URL, which may be a `data:` URL."""

    type: Literal["document"] = "document"
    url: str
    name: str = ""
    """Its file name, which the model may see."""

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str = "application/pdf", name: str = "") -> DocumentPart:
        """A document that is sent with the message."""
        return cls(url=f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}", name=name)

    @classmethod
    def from_file(cls, path: str | Path) -> DocumentPart:
        """A file that is sent with the message, under its name.

        Raises:
            OSError: it cannot be read.
            ValueError: its name does not say what kind of document it is.
        """
        kind, _ = mimetypes.guess_type(str(path))
        if kind is None or not kind.startswith(("application/", "text/")):
            raise ValueError(f"{path}: the end of its name is not that of a document, such as .pdf or .txt")
        return cls.from_bytes(Path(path).read_bytes(), kind, Path(path).name)

    @property
    def media_type(self) -> str | None:
        """Its media type, such as `application/pdf`: of a `data:` URL what it states, else by the end of the URL."""
        if self.url.startswith("data:"):
            return self.url[5:].partition(",")[0].partition(";")[0] or "text/plain"
        return mimetypes.guess_type(self.url.partition("?")[0])[0]

    @property
    def data(self) -> bytes | None:
        """The bytes in a `data:` URL; None if the document has to be fetched.

        Raises:
            ValueError: they are not what the URL says they are.
        """
        if not self.url.startswith("data:"):
            return None
        head, _, body = self.url.partition(",")
        if head.endswith(";base64"):
            return base64.b64decode(body, validate=True)
        return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), body.encode())


Content = str | tuple[TextPart | ImagePart | DocumentPart, ...]
"""What a message says: text, or pieces of text, images and documents."""


class ToolCall(_Data):
    """A model wants a tool to be called."""

    id: str
    """The answer to it carries the same id."""
    name: str
    arguments: str
    """JSON text, as the model wrote it: it may be wrong."""
    provider: dict[str, Any] = Field(default_factory=dict)
    """What the provider wants to get back with this call, such as a signature; see `ChatResponse.provider`."""

    def __hash__(self) -> int:
        return hash((self.id, self.name, self.arguments))


class Message(_Data):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Content = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """What the model wants to be called; only in messages of the assistant."""
    tool_call_id: str | None = None
    """Which of those this message answers; only in messages of tools."""
    provider: dict[str, Any] = Field(default_factory=dict)
    """What the provider wants to get back with it; see `ChatResponse.provider`."""

    def __hash__(self) -> int:
        return hash((self.role, self.content, self.tool_calls, self.tool_call_id))

    @classmethod
    def system(cls, content: Content) -> Message:
        """What the model gets before everything else."""
        return cls(role="system", content=content)

    @classmethod
    def user(cls, *content: str | TextPart | ImagePart | DocumentPart) -> Message:
        """What the user says; several pieces if there are images or documents in it."""
        if len(content) == 1 and isinstance(content[0], str):
            return cls(role="user", content=content[0])
        return cls(
            role="user", content=tuple(TextPart(text=part) if isinstance(part, str) else part for part in content)
        )

    @classmethod
    def assistant(
        cls, content: Content = "", tool_calls: Sequence[ToolCall] = (), provider: Mapping[str, Any] | None = None
    ) -> Message:
        """What the model said."""
        message = cls(role="assistant", content=content, tool_calls=tuple(tool_calls))
        return message.model_copy(update={"provider": dict(provider)}) if provider else message

    @classmethod
    def tool(cls, tool_call_id: str, content: Content) -> Message:
        """What came of a tool call."""
        return cls(role="tool", content=content, tool_call_id=tool_call_id)

    @property
    def text(self) -> str:
        """The text of it, without images and documents."""
        return text_of(self.content)

    _read_other_forms = model_validator(mode="before")(own_form)

    @model_validator(mode="after")
    def _fields_fit_the_role(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a message of the {self.role} cannot have tool calls")
        if (self.tool_call_id is None) == (self.role == "tool"):
            raise ValueError("a message of a tool, and no other, needs the id of the call that it answers")
        return self


class ToolSpec(_Data):
    """A tool as a model sees it."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    """The JSON schema of its arguments."""
    strict: bool = False
    """Whether the provider is to see to it that arguments fit the schema."""


class ChatRequest(_Data):
    """Everything that decides what a model answers, so that equal requests are the same call."""

    model: str = ""
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str | None = None
    """"auto", "none", "required", or the name of the tool that must be called. None leaves it to the provider."""
    parallel_tool_calls: bool | None = None
    output_name: str = ""
    output_schema: dict[str, Any] | None = None
    """The JSON schema that the text of the answer must fit."""
    temperature: float | None = None
    reasoning_effort: str | None = None
    """How much the model shall think: "minimal", "low", "medium" or "high", as far as it knows them."""
    top_p: float | None = None
    max_tokens: int | None = None
    """The most tokens that the answer may have."""
    stop: tuple[str, ...] = ()
    seed: int | None = None
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request, as the provider names them."""


class CallSettings(TypedDict, total=False):
    """What one call of a model can set in place of the model: fields of `ChatRequest`. It is for editors, type checkers
    and `help`.
    """

    model: str
    temperature: float | None
    reasoning_effort: str | None
    top_p: float | None
    max_tokens: int | None
    stop: Sequence[str]
    seed: int | None
    parallel_tool_calls: bool | None
    extra: dict[str, Any]


class FinishReason(StrEnum):
    """Why a model stopped."""

    STOP = "stop"
    """It had said what it wanted to say."""
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    """It had written as many tokens as it may."""
    CONTENT_FILTER = "content_filter"
    """The provider cut it off."""
    OTHER = "other"


class ChatResponse(_Data):
    """What a model answered."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = FinishReason.STOP
    refusal: str | None = None
    """Why the model will not answer, in its own words."""
    model: str = ""
    """The model that answered, as the provider names it."""
    response_id: str | None = None
    usage: Usage = Field(default_factory=Usage)
    output: Any = None
    """The answer as an object, if a type was asked for."""
    answered_by: str = ""
    """Which of several models answered, and where, if a `Fallback` was asked."""
    reasoning: str = ""
    """What the model thought before it answered, as far as the provider shows it. It is no part of the text."""
    provider: dict[str, Any] = Field(default_factory=dict)
    """What the provider wants to get back with this answer in the next request, untouched.

    Each key is the name of the provider's own field, such as `reasoning_content`. So a model of another dialect, which
    does not know the key, leaves it out of its requests.
    """

    @property
    def message(self) -> Message:
        """The answer as the next message of the conversation, with all that the provider wants back."""
        return Message.assistant(self.text or self.refusal or "", self.tool_calls, self.provider)


class ChatDelta(_Data):
    """A piece of an answer that is being written."""

    text: str = ""
    refusal: str = ""
    tool_index: int | None = None
    """Which of the answer's tool calls this belongs to, counted from 0."""
    tool_name: str = ""
    arguments: str = ""
    """The next piece of that call's arguments."""
    reasoning: str = ""
    """The next piece of what the model thinks before it answers."""
    void: bool = False
    """Whether the pieces so far are of an answer that came to nothing: it is asked for again, and starts over."""
    replayed: bool = False
    """Whether this is of a recorded answer: all of its text as one piece, or all of one of its tool calls."""

    def streamed_pieces(self) -> list[Piece]:
        """The same for those who look at text as it streams."""
        if self.void:
            return [Piece(PieceKind.VOID)]
        pieces = [
            Piece(PieceKind.REASONING, self.reasoning),
            Piece(PieceKind.REFUSAL, self.refusal),
            Piece(PieceKind.TEXT, self.text),
            Piece(PieceKind.TOOL_CALL, self.arguments, self.tool_index, self.tool_name),
        ]
        return [piece for piece in pieces if piece.text or piece.tool_name]


def pieces_of(value: Any, *, replayed: bool = True) -> list[ChatDelta]:
    """A recorded answer, or the text or the object that was made of it, as pieces; `replayed` is what they say."""
    if not isinstance(value, ChatResponse):
        text = value if isinstance(value, str) else to_json(value, fallback=str).decode()
        return [ChatDelta(text=text, replayed=replayed)]
    words = ChatDelta(text=value.text, refusal=value.refusal or "", reasoning=value.reasoning, replayed=replayed)
    calls = [
        ChatDelta(tool_index=index, tool_name=call.name, arguments=call.arguments, replayed=replayed)
        for index, call in enumerate(value.tool_calls)
    ]
    return [*([words] if words.text or words.refusal or words.reasoning or not calls else ()), *calls]


def text_of(content: Content) -> str:
    """The text of a message, without images and documents."""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, TextPart))


Said = str | Message | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]
"""What a conversation can be made of: a text of the user, a message, or a list of messages; also in OpenAI's form."""


def messages_of(prompt: Said, system: str | None = None) -> tuple[Message, ...]:
    """A conversation from a prompt, a message or a list of them; `system` comes before it.

    Raises:
        InputError: it is none of these, or a message is none; this says where and why.
    """
    if isinstance(prompt, str):
        said: tuple[Message, ...] = (Message.user(prompt),)
    elif isinstance(prompt, Message | Mapping):
        said = (_message(prompt),)
    elif isinstance(prompt, Iterable):
        said = tuple(map(_message, prompt))
    else:
        raise InputError(f"{short_repr(prompt)} is not a prompt: give a text, a message or a list of messages")
    return said if system is None else (Message.system(system), *said)


def _message(given: Any) -> Message:
    if isinstance(given, Message):
        return given
    data = given.model_dump(exclude_none=True) if isinstance(given, BaseModel) else given  # what an SDK answered
    try:
        return Message.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(map(_problem, error.errors(include_url=False)))
        raise InputError(f"{short_repr(data)} is not a message: {problems}") from error


def _problem(found: Any) -> str:
    """One thing that is wrong with a message, and in which field."""
    place = ".".join(map(str, found["loc"]))
    what = str(found["msg"]).removeprefix("Value error, ")
    return f"{place}: {what}" if place else what
