"""Runs on a host, after probe.py: asks a replica for a tool call, or for reasoning.

Standard library only. What it returns is read by `roles.validation.observations`.
"""

import re

from roles.host.probe import message, plain

# What question and answer take at most, in tokens.
MAX_TOKENS = 512
TOOL = "get_weather"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {
        "type": "function",
        "function": {"name": TOOL, "description": "The weather in a city.", "parameters": CITY},
    }
]
QUESTIONS = {
    "tool_call": "What is the weather in Paris now? Call the tool.",
    "reasoning": "Which is larger, 17 * 23 or 20 * 20? Think about it, then answer.",
}
# How models write a call; a fitting parser leaves none of it in the text.
CALLS = re.compile(r"[\"']%s[\"']|%s\(|<\|?tool_call|\[TOOL_CALLS\]|<function" % (TOOL, TOOL), re.I)
# What models put around their reasoning; a fitting parser leaves none of it in the text.
MARKS = re.compile(r"</?(?:think|thinking|reasoning|seed:think)>|\[/?THINK\]|<\|channel", re.I)


def recognise(ability, base_url, key, model, timeout_s):
    """What a replica recognises of an ability: a dict with ok, found, text and marked, or error."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTIONS[ability]}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
    }
    if ability == "tool_call":
        body.update(tools=TOOLS, tool_choice="auto")
    answer = message(base_url, key, body, timeout_s)
    if not answer["ok"]:
        return answer
    return {"ok": True, "status": 200, **READERS[ability](answer["message"])}


def tool_call(answer):
    """The first tool call of a message, and whether its text has one instead."""
    text = _text(answer.get("content"))
    calls = answer.get("tool_calls")
    call = calls[0] if isinstance(calls, list) and calls else None
    function = call.get("function") if isinstance(call, dict) else None
    found = ""
    if isinstance(function, dict) and function.get("name") == TOOL:
        found = "calls %s(%s)" % (TOOL, _text(function.get("arguments")))
    return {"found": plain(found), "text": plain(text), "marked": bool(CALLS.search(text))}


def reasoning(answer):
    """The length of a message's reasoning, and whether its text has it instead."""
    text = _text(answer.get("content"))
    # Engines name the field either way.
    thought = _text(answer.get("reasoning_content")) or _text(answer.get("reasoning"))
    found = "%d characters of reasoning" % len(thought) if thought.strip() else ""
    return {"found": found, "text": plain(text), "marked": bool(MARKS.search(text))}


def _text(value):
    return value if isinstance(value, str) else ""


READERS = {"tool_call": tool_call, "reasoning": reasoning}
