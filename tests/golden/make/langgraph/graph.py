"""A graph that needs no model: it answers by what it is asked."""

import asyncio
from typing import Annotated, TypedDict

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt


class State(TypedDict):
    messages: Annotated[list, add_messages]


CALL = {"name": "weather", "args": {"city": "Lisbon"}, "id": "call_1", "type": "tool_call"}
USAGE = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}


class Script(BaseChatModel):
    """Says what it was made with, in pieces where it is asked to stream."""

    pieces: list
    calls: bool = False

    @property
    def _llm_type(self):
        return "script"

    @property
    def _about(self):
        return {"finish_reason": "tool_calls" if self.calls else "stop", "model_name": "script-1"}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        message = AIMessage("".join(self.pieces), tool_calls=[CALL] if self.calls else [], usage_metadata=USAGE, response_metadata=self._about)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for piece in self.pieces:
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
        if self.calls:
            for name, args in (("weather", ""), (None, '{"city":'), (None, '"Lisbon"}')):
                fragment = {"name": name, "args": args, "id": "call_1" if name else None, "index": 0, "type": "tool_call_chunk"}
                yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[fragment]))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=USAGE, response_metadata=self._about))


async def agent(state):
    asked = state["messages"][-1].content
    if "weather" in asked:
        return {"messages": [await Script(pieces=["Let me", " look."], calls=True).ainvoke(state["messages"])]}
    if "slow" in asked:
        await asyncio.sleep(7)
    if "fail" in asked:
        raise ValueError("the model is down")
    if "book" in asked:
        reply = interrupt("Shall I book it?")
        return {"messages": [AIMessage(f"Booked: {reply}.", id="booked-1")]}
    return {"messages": [await Script(pieces=["You are", " Ana", "."]).ainvoke(state["messages"])]}


async def tools(state):
    return {"messages": [ToolMessage("sunny", tool_call_id="call_1", id="tool-1")]}


async def final(state):
    return {"messages": [await Script(pieces=["It is", " sunny."]).ainvoke(state["messages"])]}


builder = StateGraph(State)
builder.add_node("agent", agent)
builder.add_node("tools", tools)
builder.add_node("final", final)
builder.add_edge(START, "agent")
builder.add_conditional_edges("agent", lambda state: "tools" if getattr(state["messages"][-1], "tool_calls", None) else END, ["tools", END])
builder.add_edge("tools", "final")
builder.add_edge("final", END)
graph = builder.compile()
