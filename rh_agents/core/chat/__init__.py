"""Conversations with models, whoever provides them: messages, models as actors, their tools, and the loop of agents."""

from rh_agents.core.chat.agent_loop import AgentCall
from rh_agents.core.chat.fallback import Fallback
from rh_agents.core.chat.messages import (
    ChatDelta,
    ChatRequest,
    ChatResponse,
    Content,
    DocumentPart,
    FinishReason,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    ToolSpec,
)
from rh_agents.core.chat.model import ChatModel, ModelCall
from rh_agents.core.chat.tool_calls import call_tools

__all__ = [
    "AgentCall",
    "ChatDelta",
    "ChatModel",
    "ChatRequest",
    "ChatResponse",
    "Content",
    "DocumentPart",
    "Fallback",
    "FinishReason",
    "ImagePart",
    "Message",
    "ModelCall",
    "TextPart",
    "ToolCall",
    "ToolSpec",
    "call_tools",
]
