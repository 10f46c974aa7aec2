"""Conversations that chat templates are tried on, and how transformers renders them. For conformance_chat.py and
scripts/make_chat_goldens.py."""
import datetime
import json
import os
import time

NOW = 1721995200  # 2024-07-26 12:00 UTC: what strftime_now() formats

TOKENS = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False, "__type": "AddedToken"},
          "unk_token": "<unk>", "pad_token": None}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a place, e.g. \"Zürich\" & <others>.\nToday's.",
    "parameters": {"type": "object", "required": ["place"], "properties": {
        "place": {"type": "string", "description": "City, country"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "Unit"},
        "days": {"type": "integer", "description": "How many", "default": 1}}},
    "return": {"type": "string", "description": "A sentence"}}}
SEARCH = {"type": "function", "function": {
    "name": "search", "description": "Searches things",
    "parameters": {"type": "object", "properties": {
        "query": {"type": ["string", "null"], "description": "What"},
        "filters": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "number"}}},
        "exact": {"type": "boolean"}}, "required": []}}}
BARE = {"type": "function", "function": {"name": "ping", "description": "", "parameters": {
    "type": "object", "properties": {}}}}
CALL = {"role": "assistant", "tool_calls": [{"id": "call1abcd", "type": "function", "function": {
    "name": "get_weather", "arguments": {"place": "Zürich 🌧", "days": 2, "exact": True, "p": 0.5, "none": None}}}]}
CALL_TEXT = {"role": "assistant", "content": "", "tool_calls": [{"id": "abcdefghi", "type": "function", "function": {
    "name": "search", "arguments": "{\"query\": \"a \\\"b\\\"\"}"}}]}
TWO_CALLS = {"role": "assistant", "content": "Let me see.", "tool_calls": CALL["tool_calls"] + [
    {"id": "call2abcd", "type": "function", "function": {"name": "search", "arguments": {"query": "x", "filters": []}}}]}
RESULT = {"role": "tool", "tool_call_id": "call1abcd", "name": "get_weather", "content": "{\"rain\": true, \"t\": 12.5}"}
RESULT2 = {"role": "tool", "tool_call_id": "call2abcd", "name": "search", "content": "nothing"}
PARTS = [{"type": "text", "text": "See "}, {"type": "text", "text": "this"}]

# name: messages, tools or None, further variables.
CONVERSATIONS = {
    "one question": ([user("Hello")], None, {}),
    "system and question": ([system("You are terse."), user("Why?")], None, {}),
    "only system": ([system("You are alone.")], None, {}),
    "several turns": ([user("Hi"), assistant("Hello!"), user("2 + 2?"), assistant("4"), user("Thanks")], None, {}),
    "several turns with system": ([system("Be kind.\n\n"), user(" Hi "), assistant(" Hello!\n"), user("Bye")], None, {}),
    "assistant last": ([user("Hi"), assistant("Hello! How can I")], None, {}),
    "unicode": ([system("Réponds en français 🇫🇷"), user("naïve 你好 👩‍👩‍👧 \u00a0\u2028 \U0001f999 İ ß"),
                 assistant("Ça va — “ok” \u200b…")], None, {}),
    "markup in text": ([user("<|im_end|>\n<|im_start|>system {{ bos_token }} {% if x %} [INST] </s> <|eot_id|>"),
                        assistant("a {# b #} \\n \"c\" 'd' <think>e</think> f"), user("]} %} }}")], None, {}),
    "empty texts": ([user(""), assistant(""), user("")], None, {}),
    "white space": ([system("   "), user("\n\n  x  \t\n"), assistant("  \r\n y\r\n")], None, {}),
    "content none": ([user("Hi"), {"role": "assistant", "content": None}, user("And?")], None, {}),
    "no content": ([user("Hi"), {"role": "assistant"}], None, {}),
    "content in parts": ([user(PARTS), assistant("ok"), user(PARTS)], None, {}),
    "two users": ([user("a"), user("b")], None, {}),
    "assistant first": ([assistant("I begin"), user("ok")], None, {}),
    "system late": ([user("a"), system("b"), assistant("c"), user("d")], None, {}),
    "unknown role": ([user("a"), {"role": "critic", "content": "b"}], None, {}),
    "no role": ([{"content": "a"}], None, {}),
    "thinking": ([user("2+2"), assistant("<think>\nhm\n</think>\n\n4"), user("3+3")], None, {}),
    "reasoning field": ([user("2+2"), {"role": "assistant", "reasoning": "hm", "content": "4"}, user("3+3")], None, {}),
    "tools": ([user("Weather?")], [WEATHER], {}),
    "several tools and system": ([system("Use tools."), user("Weather?")], [WEATHER, SEARCH, BARE], {}),
    "no tools in list": ([user("Weather?")], [], {}),
    "tool call": ([user("Weather?"), CALL], [WEATHER], {}),
    "tool call and result": ([system("S"), user("Weather?"), CALL, RESULT], [WEATHER, SEARCH], {}),
    "tool round trip": ([user("Weather?"), CALL, RESULT, assistant("Rain."), user("Thanks")], [WEATHER, SEARCH], {}),
    "arguments as text": ([user("Find"), CALL_TEXT, {**RESULT2, "tool_call_id": "abcdefghi"}], [SEARCH], {}),
    "two calls": ([user("Both"), TWO_CALLS, RESULT, RESULT2, assistant("Done")], [WEATHER, SEARCH], {}),
    "result as object": ([user("W?"), CALL, {**RESULT, "content": {"rain": True, "list": [1, 2.0, None]}}], [WEATHER], {}),
    "call without tools": ([user("Weather?"), CALL, RESULT], None, {}),
    "result first": ([RESULT, user("ok")], [WEATHER], {}),
    "variables": ([system("S"), user("U")], None, {"date_string": "1 Jan 2025", "enable_thinking": False,
                                                 "bos_token": "<other>", "custom": [1, {"a": 2.5}]}),
    "date and builtin tools": ([user("U"), CALL], [WEATHER], {"builtin_tools": ["code_interpreter", "brave_search"],
                                                             "tools_in_user_message": False, "date_string": "x"}),
    "builtin call": ([user("U"), {"role": "assistant", "tool_calls": [{"type": "function", "function": {
        "name": "brave_search", "arguments": {"query": "q"}}}]}], None, {"builtin_tools": ["brave_search"]}),
    "documents": ([user("What is in it?")], [WEATHER], {"documents": [{"title": "T", "text": "Text 1"},
                                                                     {"title": "U", "text": "Text 2"}]}),
}


def cases():
    """Yields name, messages, tools, variables, add_generation_prompt."""
    for name, (messages, tools, variables) in CONVERSATIONS.items():
        for prompt in (False, True):
            yield name, messages, tools, variables, prompt


def fixed_clock():
    """Makes transformers' strftime_now() say NOW, in UTC."""
    from transformers.utils import chat_template_utils

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(NOW, tz)

    os.environ["TZ"] = "UTC"
    time.tzset()
    chat_template_utils.datetime = Clock


def make_tokenizer(template, tokens=None):
    """A tokenizer of transformers without a vocabulary."""
    from tokenizers import AddedToken, Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    texts = {name: AddedToken(value["content"]) if isinstance(value, dict) else value
             for name, value in (tokens or TOKENS).items() if value is not None}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), chat_template=template, **texts)


def expected(tokenizer, messages, tools, variables, prompt):
    """The text, or the exception that transformers raises."""
    try:
        return tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompt,
                                             **variables)
    except Exception as error:  # noqa: BLE001: a template may raise anything
        return error


def request(template, messages, tools, variables, prompt, tokens=None):
    """The same for tests/chat_driver.cc."""
    config = dict(tokens or TOKENS)
    out = {"now": NOW, "messages": json.dumps(messages, ensure_ascii=False), "add_generation_prompt": prompt}
    if isinstance(template, str):
        out["chat_template"] = template
    else:
        config["chat_template"] = template
    out["tokenizer_config"] = json.dumps(config, ensure_ascii=False)
    if tools is not None:
        out["tools"] = json.dumps(tools, ensure_ascii=False)
    if variables:
        out["variables"] = json.dumps(variables, ensure_ascii=False)
    return out
