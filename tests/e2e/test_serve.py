#!/usr/bin/env python3
"""Asks upg serve over HTTP, as clients of OpenAI's and Anthropic's APIs do. Standard library only.

  test_serve.py [TEST...]      the program is $UPG, or build/release/upg of this repository

test_serve_limits.py has what is refused, cut off and shut down. tests/clients has the clients themselves.
"""
import base64
import json
import math
import pathlib
import shutil
import struct
import tempfile
import threading
import unittest

from cli import DEMO, main
from serving import Server, copy_calling_model

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells the weather",
                                         "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}


class ServeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = pathlib.Path(tempfile.mkdtemp(prefix="upg_serve_"))
        cls.addClassCleanup(shutil.rmtree, cls.tmp)
        cls.server = Server(DEMO, "--context", 512, log=cls.tmp / "log")
        cls.addClassCleanup(cls.server.stop)

    def post(self, path, body, status=200):
        answer = self.server.post(path, body)
        self.assertEqual(answer.status, status, answer.body)
        return answer

    def chat(self, messages=HELLO, **more):
        return self.post("/v1/chat/completions", {"messages": messages, "max_tokens": 8, **more}).json

    def refused(self, path, body, param, *words, status=400):
        error = self.post(path, body, status).json["error"]
        self.assertEqual(error["param"], param)
        for word in words:
            self.assertIn(str(word), error["message"])


class Chat(ServeTest):
    def test_an_answer_has_the_fields_that_clients_read(self):
        answer = self.chat(model="anything")
        self.assertEqual(answer["object"], "chat.completion")
        self.assertEqual(answer["model"], "demo")
        self.assertEqual(answer["choices"][0]["message"]["role"], "assistant")
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")
        self.assertEqual(answer["usage"]["completion_tokens"], 8)
        self.assertEqual(answer["usage"]["total_tokens"], answer["usage"]["prompt_tokens"] + 8)

    def test_a_stream_has_the_same_text_in_pieces_and_the_usage_at_its_end(self):
        body = {"messages": HELLO, "max_tokens": 12, "seed": 3}
        whole = self.chat(**body)
        answer = self.post("/v1/chat/completions",
                           {**body, "stream": True, "stream_options": {"include_usage": True}})
        self.assertTrue(answer.headers["content-type"].startswith("text/event-stream"))
        events = [data for _, data in answer.events]
        self.assertEqual(events[-1], "[DONE]")
        self.assertEqual(events[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual(events[-3]["choices"][0]["finish_reason"], "length")
        self.assertEqual(events[-2]["choices"], [])
        self.assertEqual(events[-2]["usage"]["completion_tokens"], 12)
        self.assertTrue(all(event["usage"] is None for event in events[:-2]))
        text = "".join(event["choices"][0]["delta"].get("content", "") for event in events[:-2])
        self.assertEqual(text, whole["choices"][0]["message"]["content"])
        without = self.post("/v1/chat/completions", {**body, "stream": True}).events
        self.assertTrue(all("usage" not in data for _, data in without[:-1]))

    def test_choices_differ_and_a_seed_repeats_them(self):
        one, two = self.chat(n=3, seed=5), self.chat(n=3, seed=5)
        texts = [choice["message"]["content"] for choice in one["choices"]]
        self.assertEqual(texts, [choice["message"]["content"] for choice in two["choices"]])
        self.assertEqual(len(set(texts)), 3)
        self.assertEqual([choice["index"] for choice in one["choices"]], [0, 1, 2])
        self.assertEqual(one["usage"]["completion_tokens"], 24)
        streamed = self.post("/v1/chat/completions",
                             {"messages": HELLO, "max_tokens": 8, "n": 3, "seed": 5, "stream": True}).events
        for i, text in enumerate(texts):
            pieces = [e["choices"][0] for _, e in streamed[:-1] if e["choices"][0]["index"] == i]
            self.assertEqual("".join(p["delta"].get("content", "") for p in pieces), text)

    def test_a_request_has_the_same_text_alone_and_beside_others(self):
        alone = self.chat(seed=11, max_tokens=24)["choices"][0]["message"]["content"]
        texts = {}

        def ask(i):
            messages = HELLO if i % 2 == 0 else [{"role": "user", "content": f"Number {i}"}]
            texts[i] = self.chat(messages, seed=11, max_tokens=24)["choices"][0]["message"]["content"]

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual({texts[i] for i in range(0, 8, 2)}, {alone})

    def test_the_second_turn_reads_only_what_is_new(self):
        first = [{"role": "user", "content": "Tell me of rivers. " * 8}]
        one = self.chat(first, temperature=0)
        turn = first + [one["choices"][0]["message"], {"role": "user", "content": "More"}]
        two = self.chat(turn, temperature=0)["usage"]
        self.assertGreaterEqual(two["prompt_tokens_details"]["cached_tokens"], one["usage"]["prompt_tokens"] - 1)
        self.assertLess(two["prompt_tokens_details"]["cached_tokens"], two["prompt_tokens"])

    def test_stop_strings_end_an_answer_and_are_not_part_of_it(self):
        whole = self.chat(temperature=0, max_tokens=16)["choices"][0]["message"]["content"]
        stop = whole[4:6]
        for stops in (stop, ["\u1234", stop]):
            choice = self.chat(temperature=0, max_tokens=16, stop=stops)["choices"][0]
            self.assertEqual(choice["message"]["content"], whole[:whole.index(stop)])
            self.assertEqual(choice["finish_reason"], "stop")

    def test_log_probabilities_come_with_each_token(self):
        choice = self.chat(logprobs=True, top_logprobs=3, temperature=0)["choices"][0]
        content = choice["logprobs"]["content"]
        self.assertEqual(len(content), 8)
        self.assertEqual("".join(token["token"] for token in content), choice["message"]["content"])
        for token in content:
            self.assertEqual(len(token["top_logprobs"]), 3)
            self.assertEqual(token["top_logprobs"][0]["logprob"], token["logprob"])
            self.assertEqual(bytes(token["bytes"]).decode(), token["token"])
        streamed = self.post("/v1/chat/completions", {"messages": HELLO, "max_tokens": 8, "logprobs": True,
                                                      "temperature": 0, "stream": True}).events
        tokens = [t for _, e in streamed[:-1] for t in (e["choices"][0]["logprobs"] or {"content": []})["content"]]
        self.assertEqual([t["token"] for t in tokens], [t["token"] for t in content])

    def test_sampling_fields_reach_the_sampler(self):
        token = self.post("/tokenize", {"content": " the"}).json["tokens"][0]
        forced = self.chat(logit_bias={token: 100}, max_tokens=4)["choices"][0]["message"]["content"]
        self.assertEqual(forced, " the" * 4)
        likeliest = self.chat(temperature=0)["choices"][0]["message"]["content"]
        self.assertEqual(self.chat(top_k=1)["choices"][0]["message"]["content"], likeliest)
        self.assertEqual(self.chat(top_p=0)["choices"][0]["message"]["content"], likeliest)
        self.assertNotEqual(self.chat(temperature=0, repetition_penalty=5, max_tokens=40), likeliest)

    def test_content_may_come_in_parts(self):
        parts = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
        self.assertEqual(self.chat(parts, temperature=0)["choices"], self.chat(temperature=0)["choices"])

    def test_unknown_fields_are_ignored_and_null_is_absent(self):
        self.chat(frobnicate={"a": 1}, stop=None, n=None, tools=None, logit_bias=None, seed=None, stream_options=None)

    def test_wrong_fields_are_refused_by_name(self):
        for field, value, *words in (
                ("messages", "Hello", "array"), ("temperature", "hot", "number"), ("temperature", -1, 100),
                ("n", 1.5, "integer"), ("n", 17, 16), ("n", 0), ("seed", "x"), ("max_tokens", 0),
                ("max_tokens", 1e30), ("stop", ["a"] * 17, 16), ("stop", 3), ("stop", ""), ("stream", "yes"),
                ("logit_bias", {"x": 1}, "token ids"), ("logit_bias", {str(i): 1 for i in range(1025)}, 1024),
                ("logit_bias", []), ("top_logprobs", 21, 20), ("top_logprobs", 2, "logprobs"),
                ("tools", {}), ("tool_choice", "perhaps"), ("messages", [], "empty"),
                ("presence_penalty", 2.5), ("response_format", {"type": "grammar"})):
            with self.subTest(field=field, value=str(value)[:40]):
                self.refused("/v1/chat/completions", {"messages": HELLO, "max_tokens": 4, field: value}, field, *words)
        self.refused("/v1/chat/completions", {}, "messages", "missing")
        self.refused("/v1/chat/completions", {"messages": [{"role": "king", "content": "x"}]}, "messages[0].role")
        self.refused("/v1/chat/completions", {"messages": [{"role": "user"}]}, "messages[0].content")
        self.refused("/v1/chat/completions", {"messages": HELLO, "logit_bias": {"1": "a"}}, "logit_bias.1")
        image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
        self.refused("/v1/chat/completions", {"messages": image}, "messages[0].content[0]", "text only")

    def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(self):
        long = [{"role": "user", "content": "word " * 600}]
        error = self.post("/v1/chat/completions", {"messages": long}, 400).json["error"]
        self.assertEqual(error["code"], "context_length_exceeded")
        self.assertRegex(error["message"], r"has 6\d\d tokens and the context holds 512")


class Tools(ServeTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.caller = Server(copy_calling_model(cls.tmp), "--context", 512, log=cls.tmp / "caller.log")
        cls.addClassCleanup(cls.caller.stop)

    def test_tools_reach_the_template(self):
        count = lambda **more: self.caller.post("/tokenize", {"messages": HELLO, **more}).json["count"]
        self.assertGreater(count(tools=[TOOL]), count() + 20)
        self.assertEqual(count(tools=[TOOL], tool_choice="none"), count())

    def test_earlier_calls_and_results_are_rendered(self):
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Rome\"}"}}
        messages = HELLO + [{"role": "assistant", "content": None, "tool_calls": [call]},
                            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}]
        tokens = self.caller.post("/tokenize", {"messages": messages}).json["tokens"]
        text = self.caller.post("/detokenize", {"tokens": tokens}).json["content"]
        self.assertIn('<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>', text)

    ADD = {"type": "function", "function": {"name": "add"}}

    def test_a_call_that_is_required_comes_with_arguments_that_are_an_object(self):
        named = {"type": "function", "function": {"name": "weather"}}
        for choice, names in (("required", {"weather", "add"}), (named, {"weather"})):
            body = {"messages": HELLO, "tools": [TOOL, self.ADD], "tool_choice": choice, "max_tokens": 200, "seed": 1,
                    "temperature": 0.4}
            for seed in range(4):
                answer = self.caller.post("/v1/chat/completions", {**body, "seed": seed}).json["choices"][0]
                if answer["finish_reason"] == "length":
                    continue
                self.assertEqual(answer["finish_reason"], "tool_calls")
                self.assertIsNone(answer["message"]["content"])
                call, = answer["message"]["tool_calls"]
                self.assertIn(call["function"]["name"], names)
                self.assertIsInstance(json.loads(call["function"]["arguments"]), dict)
                break
            else:
                self.fail("no call came to its end")
            deltas = [e["choices"][0]["delta"].get("tool_calls", [None])[0] for _, e in
                      self.caller.post("/v1/chat/completions", {**body, "seed": seed, "stream": True}).events[:-1]]
            first, rest = [delta for delta in deltas if delta]
            self.assertEqual(first["function"], {"name": call["function"]["name"], "arguments": ""})
            self.assertEqual(rest["function"]["arguments"], call["function"]["arguments"])

    def test_calls_in_the_forms_of_the_other_routes(self):
        schema = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
        message = self.caller.post("/v1/messages", {
            "messages": HELLO, "tools": [{"name": "weather", "input_schema": schema}], "seed": 1,
            "tool_choice": {"type": "any"}, "max_tokens": 200, "temperature": 0.4}).json
        self.assertEqual(message["stop_reason"], "tool_use")
        self.assertEqual((message["content"][0]["type"], message["content"][0]["name"]), ("tool_use", "weather"))
        self.assertIn(message["content"][0]["input"]["city"], ("Rome", "Oslo"))
        response = self.caller.post("/v1/responses", {
            "input": "Hello", "tools": [{"type": "function", "name": "weather", "parameters": schema}], "seed": 1,
            "tool_choice": "required", "max_output_tokens": 200, "temperature": 0.4}).json
        self.assertEqual((response["output"][0]["type"], response["output"][0]["name"]), ("function_call", "weather"))
        self.assertIn(json.loads(response["output"][0]["arguments"])["city"], ("Rome", "Oslo"))

    def test_what_cannot_be_called_is_refused(self):
        for more in ({"tool_choice": "required"}, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}):
            answer = self.caller.post("/v1/chat/completions", {"messages": HELLO, **more})
            self.assertEqual((answer.status, answer.json["error"]["param"]), (400, "tool_choice"))
        self.refused("/v1/chat/completions", {"messages": HELLO, "tools": [TOOL], "tool_choice": "required"},
                     "tool_choice", "does not know")
        self.refused("/v1/chat/completions", {"messages": HELLO, "tools": [{"type": "function"}]}, "tools[0].function")


class Completions(ServeTest):
    def complete(self, **body):
        return self.post("/v1/completions", {"max_tokens": 4, "temperature": 0, **body}).json

    def test_prompts_are_texts_or_tokens_one_or_several(self):
        tokens = self.post("/tokenize", {"content": "The history of"}).json["tokens"]
        text = self.complete(prompt="The history of")["choices"][0]["text"]
        for prompt in (tokens, [tokens], ["The history of"]):
            self.assertEqual(self.complete(prompt=prompt)["choices"][0]["text"], text)
        many = self.complete(prompt=["Once", "The history of", "A"], n=2)["choices"]
        self.assertEqual([c["index"] for c in many], list(range(6)))
        self.assertEqual(many[2]["text"], text)

    def test_more_prompts_than_the_queue_holds_are_all_answered(self):
        prompts = [f"Number {i} is" for i in range(100)]
        choices = self.complete(prompt=prompts, max_tokens=1)["choices"]
        self.assertEqual(len(choices), 100)
        self.assertTrue(all(choice["finish_reason"] == "length" for choice in choices))

    def test_an_evaluation_gets_the_log_probabilities_of_its_text(self):
        tokens = self.post("/tokenize", {"content": "The history of the city"}).json["tokens"]
        choice = self.complete(prompt=[tokens], echo=True, max_tokens=1, logprobs=1)["choices"][0]
        logprobs = choice["logprobs"]
        self.assertEqual(len(logprobs["token_logprobs"]), len(tokens) + 1)
        self.assertIsNone(logprobs["token_logprobs"][0])
        self.assertTrue(all(value <= 0 for value in logprobs["token_logprobs"][1:]))
        self.assertEqual(logprobs["token_logprobs"][-1], max(logprobs["top_logprobs"][-1].values()))
        self.assertEqual("".join(logprobs["tokens"]), choice["text"])
        for token, offset in zip(logprobs["tokens"], logprobs["text_offset"]):
            self.assertEqual(choice["text"][offset:offset + len(token)], token)
        none = self.complete(prompt=[tokens], echo=True, max_tokens=0, logprobs=1)["choices"][0]
        self.assertEqual(none["logprobs"]["token_logprobs"], logprobs["token_logprobs"][:-1])
        self.assertEqual(none["text"], "The history of the city")

    def test_a_stream_has_the_same_text(self):
        whole = self.complete(prompt="Once upon", max_tokens=9, echo=True)
        events = self.post("/v1/completions", {"prompt": "Once upon", "max_tokens": 9, "temperature": 0, "echo": True,
                                               "stream": True, "stream_options": {"include_usage": True}}).events
        self.assertEqual(events[-1][1], "[DONE]")
        self.assertEqual("".join(e["choices"][0]["text"] for _, e in events[:-2]), whole["choices"][0]["text"])
        self.assertEqual(events[-2][1]["usage"]["completion_tokens"], 9)

    def test_wrong_prompts_are_refused(self):
        for prompt, field in ((None, "prompt"), (3, "prompt"), ([], "prompt"), ([[]], "prompt[0]"), ([1, "a"], "prompt[1]"),
                              ([8192], "prompt"), ([-1], "prompt"), (["a", 3], "prompt[1]"), ("", "prompt"),
                              (["a"] * 1025, "prompt"), ([1] * 513, "prompt")):
            with self.subTest(prompt=str(prompt)[:40]):
                self.refused("/v1/completions", {"prompt": prompt}, field)
        self.refused("/v1/completions", {"prompt": "a", "suffix": "b"}, "suffix")
        self.refused("/v1/completions", {"prompt": "a", "best_of": 4}, "best_of")


class Responses(ServeTest):
    def test_an_answer_and_its_events(self):
        body = {"input": "Hello", "max_output_tokens": 6, "seed": 1, "instructions": "Be brief."}
        whole = self.post("/v1/responses", body).json
        self.assertEqual((whole["object"], whole["status"]), ("response", "incomplete"))
        self.assertEqual(whole["incomplete_details"], {"reason": "max_output_tokens"})
        self.assertEqual(whole["usage"]["output_tokens"], 6)
        text = whole["output"][0]["content"][0]["text"]
        events = self.post("/v1/responses", {**body, "stream": True}).events
        names = [name for name, _ in events]
        deltas = [data for name, data in events if name == "response.output_text.delta"]
        self.assertEqual("".join(data["delta"] for data in deltas), text)
        self.assertEqual(names, ["response.created", "response.in_progress", "response.output_item.added",
                                 "response.content_part.added", *["response.output_text.delta"] * len(deltas),
                                 "response.output_text.done", "response.content_part.done",
                                 "response.output_item.done", "response.incomplete"])
        self.assertTrue(all(name == data["type"] for name, data in events))
        self.assertEqual([data["sequence_number"] for _, data in events], list(range(len(events))))
        self.assertEqual(events[-1][1]["response"]["output"][0]["content"][0]["text"], text)

    def test_input_in_items(self):
        items = [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
                 {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                 {"type": "function_call_output", "call_id": "c1", "output": "x"},
                 {"type": "reasoning", "summary": []}]
        self.post("/v1/responses", {"input": items, "max_output_tokens": 2})

    def test_what_needs_a_memory_is_refused(self):
        self.refused("/v1/responses", {"input": "a", "previous_response_id": "r"}, "previous_response_id", "keeps no")
        self.refused("/v1/responses", {"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type")
        self.refused("/v1/responses", {}, "input")
        self.refused("/v1/responses", {"input": "a", "tools": [{"type": "web_search"}]}, "tools[0].type")


class Messages(ServeTest):
    BODY = {"messages": HELLO, "max_tokens": 6, "temperature": 0}

    def test_an_answer_and_its_events(self):
        whole = self.post("/v1/messages", {**self.BODY, "model": "claude"}).json
        self.assertEqual((whole["type"], whole["role"], whole["model"]), ("message", "assistant", "demo"))
        self.assertEqual(whole["stop_reason"], "max_tokens")
        self.assertEqual(whole["usage"]["output_tokens"], 6)
        events = self.post("/v1/messages", {**self.BODY, "stream": True}).events
        names = [name for name, _ in events]
        deltas = [data["delta"]["text"] for name, data in events if name == "content_block_delta"]
        self.assertEqual(names, ["message_start", "ping", "content_block_start", *["content_block_delta"] * len(deltas),
                                 "content_block_stop", "message_delta", "message_stop"])
        self.assertEqual("".join(deltas), whole["content"][0]["text"])
        self.assertEqual(events[-2][1]["delta"]["stop_reason"], "max_tokens")

    def test_the_stop_sequence_that_was_met_is_named(self):
        text = self.post("/v1/messages", self.BODY).json["content"][0]["text"]
        stopped = self.post("/v1/messages", {**self.BODY, "stop_sequences": ["\u1234", text[5]]}).json
        self.assertEqual((stopped["stop_reason"], stopped["stop_sequence"]), ("stop_sequence", text[5]))

    def test_tokens_are_counted_without_generating(self):
        generated = self.server.metric("upg_generated_tokens_total")
        count = self.post("/v1/messages/count_tokens", {"messages": HELLO, "system": "Be brief."}).json["input_tokens"]
        without = self.post("/v1/messages/count_tokens", {"messages": HELLO}).json["input_tokens"]
        self.assertGreater(count, without)
        self.assertEqual(self.server.metric("upg_generated_tokens_total"), generated)

    def test_blocks_and_a_begun_answer(self):
        blocks = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
        plain = self.post("/v1/messages", self.BODY).json["content"]
        self.assertEqual(self.post("/v1/messages", {**self.BODY, "messages": blocks}).json["content"], plain)
        begun = HELLO + [{"role": "assistant", "content": plain[0]["text"]}]
        more = self.post("/v1/messages", {**self.BODY, "messages": begun}).json["content"][0]["text"]
        longer = self.post("/v1/messages", {**self.BODY, "max_tokens": 12}).json["content"][0]["text"]
        self.assertEqual(plain[0]["text"] + more, longer)

    def test_errors_have_the_form_of_that_api(self):
        for body, word in (({"messages": HELLO}, "max_tokens"), ({"max_tokens": 3}, "messages"),
                           ({**self.BODY, "messages": [{"role": "system", "content": "x"}]}, "role")):
            error = self.post("/v1/messages", body, 400).json
            self.assertEqual((error["type"], error["error"]["type"]), ("error", "invalid_request_error"))
            self.assertIn(word, error["error"]["message"])


class Others(ServeTest):
    def test_models_are_listed(self):
        models = self.server.get("/v1/models").json
        self.assertEqual([model["id"] for model in models["data"]], ["demo"])
        self.assertEqual(self.server.get("/v1/models/demo").json, models["data"][0])
        missing = self.server.get("/v1/models/other")
        self.assertEqual((missing.status, missing.json["error"]["code"]), (404, "model_not_found"))

    def test_embeddings_have_length_one_in_both_forms(self):
        answer = self.post("/v1/embeddings", {"input": ["Hello", "A river"]}).json
        vectors = [entry["embedding"] for entry in answer["data"]]
        self.assertEqual([len(v) for v in vectors], [256, 256])
        for vector in vectors:
            self.assertAlmostEqual(math.sqrt(sum(x * x for x in vector)), 1, places=5)
        coded = self.post("/v1/embeddings", {"input": "Hello", "encoding_format": "base64"}).json
        decoded = struct.unpack("<256f", base64.b64decode(coded["data"][0]["embedding"]))
        self.assertEqual(list(decoded), [struct.unpack("<f", struct.pack("<f", x))[0] for x in vectors[0]])
        self.refused("/v1/embeddings", {"input": "a", "dimensions": 8}, "dimensions", 256)
        self.refused("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, "encoding_format")

    def test_tokens_there_and_back(self):
        tokens = self.post("/tokenize", {"content": "The <|im_end|> café"}).json
        self.assertEqual(len(tokens["tokens"]), tokens["count"])
        self.assertEqual(self.post("/detokenize", {"tokens": tokens["tokens"]}).json["content"], "The <|im_end|> café")
        self.refused("/detokenize", {"tokens": [99999]}, "tokens", 8192)

    def test_metrics_count(self):
        before = self.server.metric("upg_generated_tokens_total")
        self.chat(max_tokens=5)
        self.assertEqual(self.server.metric("upg_generated_tokens_total"), before + 5)
        for line in self.server.get("/metrics").body.splitlines():
            self.assertRegex(line, r'\A(# (HELP|TYPE) .+|[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+.e0-9]+)\Z')

    def test_the_description_lists_every_route(self):
        paths = self.server.get("/openapi.json").json["paths"]
        self.assertEqual(set(paths), {
            "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens",
            "/v1/models", "/v1/models/{id}", "/v1/embeddings", "/tokenize", "/detokenize", "/health", "/metrics",
            "/openapi.json", "/"})

    def test_the_page_is_there(self):
        page = self.server.get("/")
        self.assertTrue(page.body.startswith("<!doctype html>") or page.body.startswith("<!DOCTYPE html>"))
        self.assertIn("connect-src 'self'", page.headers["content-security-policy"])

    def test_a_connection_serves_several_requests(self):
        connection = self.server.connect()
        for _ in range(3):
            connection.request("POST", "/tokenize", json.dumps({"content": "a"}), {"Content-Type": "application/json"})
            response = connection.getresponse()
            self.assertEqual((response.status, response.read() != b""), (200, True))
        connection.close()

    def test_each_request_is_a_line_of_the_log_without_the_prompt(self):
        self.chat([{"role": "user", "content": "xyzzy"}])
        self.assertRegex(self.server.logged(), r"POST /v1/chat/completions 200 \d+\.\d+s model=demo prompt=\d+ ")
        self.assertNotIn("xyzzy", self.server.logged())


if __name__ == "__main__":
    main()
