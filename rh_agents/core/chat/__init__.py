"""Conversations with models, whoever provides them: messages, models as actors, their tools, and the loop of agents."""

from rh_agents.core.chat.messages import (
    ChatDelta,
    ChatRequest,
    ChatResponse,
    Content,
    FinishReason,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    ToolSpec,
)
from rh_agents.core.chat.model import ChatModel

__all__ = [
    "ChatDelta",
    "ChatModel",
    "ChatRequest",
    "ChatResponse",
    "Content",
    "FinishReason",
    "ImagePart",
    "Message",
    "TextPart",
    "ToolCall",
    "ToolSpec",
]
