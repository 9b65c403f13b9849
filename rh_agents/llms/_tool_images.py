"""Images in the results of tools, for protocols whose tool messages hold only text, as that of OpenAI.

The answers to the calls of a turn have to follow it at once, so the images wait until the last of them: then a message
of the user carries them all, each behind a line that says of which call it is. In the answer itself a mark stands in
the place of each. A conversation without images in results is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from rh_agents.core.chat.messages import DocumentPart, ImagePart, Message, TextPart

BRIDGE = "I have the results of the tools."
"""What the assistant says between them and a message of the user, where a server insists on that."""


def with_images_beside_tools(messages: Sequence[Message], *, needs_bridge: bool = False) -> list[Message]:
    """The conversation with text only in the messages of tools.

    Args:
        messages: the conversation.
        needs_bridge: whether the server refuses a message of the user that follows one of a tool.
    """
    found: list[Message] = []
    waiting: list[TextPart | ImagePart | DocumentPart] = []
    names: dict[str, str] = {}

    def let_go(following: Message | None) -> None:
        if waiting:
            user = Message(role="user", content=tuple(waiting))
            waiting.clear()
        elif following is not None and following.role == "user":
            user = None
        else:
            return
        if needs_bridge and found and found[-1].role == "tool":
            found.append(Message.assistant(BRIDGE))
        if user is not None:
            found.append(user)

    for message in messages:
        if message.role != "tool":
            let_go(message)
            names |= {call.id: call.name for call in message.tool_calls}
            found.append(message)
            continue
        text, parts = _parted(message, names.get(message.tool_call_id or "", "a tool"))
        found.append(text)
        waiting += parts
    let_go(None)
    return found


def _parted(message: Message, name: str) -> tuple[Message, list[TextPart | ImagePart | DocumentPart]]:
    """A message of a tool without its images, and these with what they are."""
    if isinstance(message.content, str):
        return message, []
    words: list[str] = []
    parts: list[TextPart | ImagePart | DocumentPart] = []
    for part in message.content:
        if isinstance(part, TextPart):
            words.append(part.text)
            continue
        kind = "image" if isinstance(part, ImagePart) else "document"
        number = 1 + sum(type(each) is type(part) for each in parts)
        words.append(f"[{kind} {number}: see below]")
        parts += [
            TextPart(text=f"{kind.capitalize()} {number} of the result of {name} ({message.tool_call_id}):"),
            part,
        ]
    return message.model_copy(update={"content": "\n".join(words)}), parts
