#!/usr/bin/env python3
"""Answers that must have a form: JSON schemas, regular expressions and grammars, by every route of the server and on the
command line. What a model says under them is checked by the package jsonschema.

  test_grammars.py [TEST...]      the program is $UPG, or build/release/upg of this repository
"""
import concurrent.futures
import json
import pathlib
import re
import shutil
import tempfile
import unittest

import jsonschema

from cli import DEMO, CliTest, main, upg
from serving import Server, copy_calling_model
from test_serve import HELLO

PERSON = {"type": "object", "properties": {
    "name": {"type": "string", "maxLength": 10}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "tags": {"type": "array", "items": {"enum": ["new", "old"]}, "maxItems": 2}},
    "required": ["name", "age", "tags"], "additionalProperties": False}

# Bounded, so that even tokens drawn from a hat come to an end.
SCHEMAS = [
    PERSON,
    {"type": "boolean"},
    {"type": "integer", "minimum": -12, "exclusiveMaximum": 12, "multipleOf": 4},
    {"type": "number", "minimum": 0.25, "maximum": 7.5},
    {"type": "string", "minLength": 1, "maxLength": 5},
    {"type": "string", "pattern": "^[A-Z][a-z]{2,4}(-[0-9]{1,3})?$"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "ipv4"},
    {"const": {"a": [1, "ü/\"\\", None]}},
    {"enum": ["red", "green", 3, None, True]},
    {"type": ["null", "boolean"]},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {"type": "array", "prefixItems": [{"const": "x"}, {"type": "null"}], "items": False, "minItems": 1},
    {"type": "object", "properties": {"b": {"type": "null"}, "a": {"type": "boolean"}}, "required": ["a"]},
    {"type": "object", "properties": {k: {"type": "null"} for k in "abc"}, "minProperties": 1, "maxProperties": 2,
     "additionalProperties": False},
    {"type": "object", "patternProperties": {"^[xy]$": {"enum": [1]}}, "additionalProperties": False, "maxProperties": 2},
    {"type": "object", "propertyNames": {"enum": ["p", "q"]}, "additionalProperties": {"const": 0}, "maxProperties": 2},
    {"anyOf": [{"type": "object", "properties": {"x": {"const": 1}}, "required": ["x"]}, {"type": "null"}]},
    {"oneOf": [{"type": "object", "properties": {"kind": {"const": k}, k: {"type": "boolean"}}, "required": ["kind", k]}
               for k in ("cat", "dog")]},
    {"$defs": {"leaf": {"enum": [1, 2]}, "pair": {"type": "array", "items": {"$ref": "#/$defs/leaf"}, "minItems": 2,
                                                  "maxItems": 2}},
     "type": "object", "properties": {"left": {"$ref": "#/$defs/pair"}, "right": {"$ref": "#/$defs/leaf"}},
     "required": ["left", "right"]},
]

# What a server of strangers may get: each with words of the reason.
HOSTILE = [
    ({"type": "array", "items": {}, "minItems": 10**9}, "100000 is the limit"),
    ({"type": "string", "minLength": 10**12}, "is the limit"),
    ({"enum": ["v" * 50 + str(i) for i in range(3000)]}, "32 KiB"),
    ({"$ref": "#"}, "refers to itself"),
    ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "refers to itself"),
    ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no value that ends"),
    ({"$ref": "https://example.com/schema.json"}, "into the schema itself"),
    ({"$ref": "#/nothing/here"}, "not there"),
    ({"type": "string", "pattern": "((a{99}){99}){99}"}, "too large"),
    ({"type": "string", "pattern": "(?=x)y"}, "pattern"),
    ({"type": "string", "pattern": "a" * 5000}, "4096 are the limit"),
    ({"type": "object", "properties": {"a": {"not": {}}}}, "#/properties/a"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({"allOf": [{"type": "object"}, {"required": ["a"]}]}, "allOf"),
    ({"type": "quaternion"}, "quaternion"),
    ({"description": "x" * 300000}, "262144 are the limit"),
    ({"anyOf": [{"type": "null"}] * 3000, "$defs": {}} | {"properties": {str(i): {} for i in range(3000)}}, "anyOf"),
]


def grammars_missing():
    """Why the program has no grammars, or an empty text."""
    said = upg("run", DEMO, "-p", "a", "-n", 1, "--regex", "a").stderr
    return said.strip() if "this build has no grammars" in said else ""


class GrammarTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if missing := grammars_missing():
            raise unittest.SkipTest(missing)
        cls.tmp = pathlib.Path(tempfile.mkdtemp(prefix="upg_grammars_"))
        cls.addClassCleanup(shutil.rmtree, cls.tmp)
        cls.server = Server(copy_calling_model(cls.tmp), "--context", 1024, "--parallel", 4, log=cls.tmp / "log")
        cls.addClassCleanup(cls.server.stop)

    def post(self, path, body, status=200):
        answer = self.server.post(path, body)
        self.assertEqual(answer.status, status, answer.body)
        return answer

    def chat(self, **more):
        body = {"messages": HELLO, "max_tokens": 600, "seed": 1, **more}
        return self.post("/v1/chat/completions", body).json["choices"]

    def refused(self, path, body, *words):
        error = self.post(path, body, 400).json["error"]
        for word in words:
            self.assertIn(word, error["message"])
        return error

    def check(self, schema, text):
        jsonschema.validate(json.loads(text), schema, cls=jsonschema.Draft202012Validator)


def json_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


class Schemas(GrammarTest):
    def test_answers_are_valid_whatever_the_model_would_rather_say(self):
        def ask(case):
            schema, temperature, seed = case
            return schema, self.chat(response_format=json_format(schema), temperature=temperature, seed=seed)[0]

        # At a temperature of 100 the tokens are drawn from a hat.
        cases = [(schema, temperature, seed) for schema in SCHEMAS for seed, temperature in enumerate((0.8, 100))]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for schema, choice in pool.map(ask, cases):
                with self.subTest(schema=schema):
                    self.assertEqual(choice["finish_reason"], "stop")
                    self.check(schema, choice["message"]["content"])

    def test_every_route_takes_schemas_whole_and_streamed(self):
        def piece(path, event):
            if path == "/v1/completions":
                return event["choices"][0]["text"] if event["choices"] else ""
            if path == "/v1/chat/completions":
                return event["choices"][0]["delta"].get("content", "") if event["choices"] else ""
            if path == "/v1/responses":
                return event["delta"] if event["type"] == "response.output_text.delta" else ""
            return event["delta"]["text"] if event["type"] == "content_block_delta" else ""

        flat = {"type": "json_schema", "name": "answer", "schema": PERSON, "strict": True}
        chat, prompt = {"messages": HELLO, "max_tokens": 400}, {"prompt": "A person: ", "max_tokens": 400}
        for path, body, text in (
                ("/v1/chat/completions", {**chat, "response_format": json_format(PERSON)},
                 lambda a: a["choices"][0]["message"]["content"]),
                ("/v1/chat/completions", {**chat, "structured_outputs": {"json": PERSON}},
                 lambda a: a["choices"][0]["message"]["content"]),
                ("/v1/completions", {**prompt, "guided_json": json.dumps(PERSON)}, lambda a: a["choices"][0]["text"]),
                ("/v1/completions", {**prompt, "json_schema": PERSON}, lambda a: a["choices"][0]["text"]),
                ("/v1/responses", {"input": "Hello", "max_output_tokens": 400, "text": {"format": flat}},
                 lambda a: a["output"][0]["content"][0]["text"]),
                ("/v1/messages", {**chat, "output_format": {"type": "json_schema", "schema": PERSON}},
                 lambda a: a["content"][0]["text"]),
                ("/v1/messages", {**chat, "output_config": {"format": {"type": "json_schema", "schema": PERSON}}},
                 lambda a: a["content"][0]["text"])):
            with self.subTest(path=path, fields=list(body)):
                body = {**body, "seed": 3, "temperature": 0.7}
                said = text(self.post(path, body).json)
                self.check(PERSON, said)
                events = [e for _, e in self.post(path, {**body, "stream": True}).events if e != "[DONE]"]
                self.assertEqual("".join(piece(path, e) for e in events), said)

    def test_json_object_is_an_object_of_any_kind(self):
        ended = 0
        for seed in range(6):
            choice = self.chat(response_format={"type": "json_object"}, seed=seed, max_tokens=200, temperature=0.5)[0]
            self.assertTrue(choice["message"]["content"].startswith("{"))
            if choice["finish_reason"] == "stop":
                ended += 1
                self.assertIsInstance(json.loads(choice["message"]["content"]), dict)
        self.assertGreater(ended, 0)

    def test_choices_have_places_of_their_own_and_seeds_repeat_them(self):
        body = dict(response_format=json_format(PERSON), n=4, temperature=1.5, logprobs=True, top_logprobs=3)
        first, again = self.chat(**body), self.chat(**body)
        self.assertEqual(first, again)
        texts = {choice["message"]["content"] for choice in first}
        self.assertGreater(len(texts), 1)
        for text in texts:
            self.check(PERSON, text)

    def test_hostile_schemas_are_refused_with_the_reason_and_harm_nobody(self):
        for schema, reason in HOSTILE:
            with self.subTest(schema=str(schema)[:100]):
                error = self.refused("/v1/chat/completions", {"messages": HELLO, "response_format": json_format(schema)}, reason)
                self.assertEqual(error["param"], "response_format")
        deep = "{\"items\":" * 100 + "{}" + "}" * 100
        self.refused("/v1/completions", {"prompt": "a", "guided_json": deep}, "nests")
        self.refused("/v1/completions", {"prompt": "a", "guided_json": "{"}, "JSON")
        self.assertEqual(self.server.get("/health").status, 200)
        self.check({"type": "boolean"}, self.chat(response_format=json_format({"type": "boolean"}))[0]["message"]["content"])

    def test_fields_are_refused_by_name(self):
        for fields, param in (
                ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
                ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format.json_schema.schema"),
                ({"response_format": {"type": "xml"}}, "response_format"),
                ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strict": 1}}},
                 "response_format.json_schema.strict"),
                ({"guided_choice": []}, "guided_choice"), ({"guided_choice": ["a", 1]}, "guided_choice[1]"),
                ({"guided_choice": [""]}, "guided_choice"), ({"guided_regex": 1}, "guided_regex"),
                ({"guided_json": 1}, "guided_json"), ({"structured_outputs": []}, "structured_outputs"),
                ({"guided_regex": "a", "grammar": "root ::= \"a\""}, "grammar"),
                ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.choice")):
            with self.subTest(fields=fields):
                self.assertEqual(self.refused("/v1/completions", {"prompt": "a", **fields})["param"], param)


class Grammars(GrammarTest):
    def say(self, **fields):
        choice = self.post("/v1/completions", {"prompt": "It was ", "max_tokens": 100, "seed": 2, **fields}).json["choices"][0]
        return choice["text"], choice["finish_reason"]

    def test_regular_expressions_choices_and_grammars(self):
        sums = "root ::= number (\" + \" number){1,3}\nnumber ::= [1-9] [0-9]{0,2}"
        for fields, pattern in (
                ({"guided_regex": "[a-z]{3} (one|two)"}, "[a-z]{3} (one|two)"),
                ({"structured_outputs": {"regex": "[0-9]{4}"}}, "[0-9]{4}"),
                ({"guided_choice": ["yes", "no", "perhaps, who knows"]}, "yes|no|perhaps, who knows"),
                ({"structured_outputs": {"choice": ["ja", "nein"]}}, "ja|nein"),
                ({"guided_grammar": sums}, r"[0-9]+( \+ [0-9]+){1,3}"),
                ({"structured_outputs": {"grammar": sums}}, r"[0-9]+( \+ [0-9]+){1,3}"),
                ({"grammar": sums}, r"[0-9]+( \+ [0-9]+){1,3}")):
            for temperature in (0, 1, 100):
                with self.subTest(fields=fields, temperature=temperature):
                    text, finish = self.say(**fields, temperature=temperature)
                    self.assertRegex(text, re.compile(f"\\A({pattern})\\Z"))
                    self.assertEqual(finish, "stop")

    def test_an_answer_ends_where_nothing_can_follow_even_without_end_tokens(self):
        self.assertEqual(self.say(guided_regex="abc", ignore_eos=True), ("abc", "stop"))

    def test_hostile_grammars_are_refused_and_harm_nobody(self):
        doubling = "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} r{i + 1} | \"\"\n" for i in range(40)) + "r40 ::= \"a\" | \"\"\n"
        for fields, reason in (({"grammar": doubling}, "longer than"), ({"grammar": "root ::= root"}, "no text"),
                               ({"grammar": "root ::= " + "(" * 50000}, "grammar"), ({"grammar": "\0"}, "grammar"),
                               ({"grammar": "root ::= Token(123456789)"}, "range"),
                               ({"guided_regex": "(" * 50000 + ")" * 50000}, "guided_regex"),
                               ({"guided_regex": "(a)\\1"}, "Backreference"), ({"guided_regex": ""}, "empty")):
            with self.subTest(fields=str(fields)[:80]):
                self.refused("/v1/completions", {"prompt": "a", **fields}, reason)
        self.assertEqual(self.say(guided_regex="fine"), ("fine", "stop"))


class Calls(GrammarTest):
    PAINT = {"type": "object", "properties": {"color": {"enum": ["red", "blue"]}, "size": {"type": "integer", "minimum": 1,
                                                                                           "maximum": 9}},
             "required": ["color", "size"], "additionalProperties": False}
    SWITCH = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": False}

    def tools(self, strict=True):
        return [{"type": "function", "function": {"name": name, "parameters": schema, "strict": strict}}
                for name, schema in (("paint", self.PAINT), ("switch", self.SWITCH))]

    def test_arguments_follow_the_schema_of_the_tool_that_is_called(self):
        schemas = {"paint": self.PAINT, "switch": self.SWITCH}
        called = set()
        for choice in ("required", {"type": "function", "function": {"name": "paint"}}):
            for seed in range(6):
                answer = self.chat(tools=self.tools(), tool_choice=choice, seed=seed, temperature=2)[0]
                self.assertEqual(answer["finish_reason"], "tool_calls")
                call, = answer["message"]["tool_calls"]
                self.check(schemas[call["function"]["name"]], call["function"]["arguments"])
                called.add(call["function"]["name"])
        self.assertEqual(called, {"paint", "switch"})

    def test_the_other_routes(self):
        message = self.post("/v1/messages", {
            "messages": HELLO, "max_tokens": 300, "seed": 1, "tool_choice": {"type": "tool", "name": "paint"},
            "tools": [{"name": "paint", "input_schema": self.PAINT}, {"name": "switch", "input_schema": self.SWITCH}]}).json
        self.assertEqual(message["stop_reason"], "tool_use")
        self.check(self.PAINT, json.dumps(message["content"][0]["input"]))
        response = self.post("/v1/responses", {
            "input": "Hello", "max_output_tokens": 300, "seed": 1, "tool_choice": "required",
            "tools": [{"type": "function", "name": "switch", "parameters": self.SWITCH, "strict": True}]}).json
        self.check(self.SWITCH, response["output"][0]["arguments"])

    def test_what_a_strict_tool_asks_for_is_enforced_or_refused(self):
        schema = {**self.SWITCH, "properties": {"on": {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True,
                                                       "maxItems": 2}}}
        tool = {"name": "switch", "parameters": schema, "strict": True}
        self.refused("/v1/chat/completions", {"messages": HELLO, "tool_choice": "required",
                                              "tools": [{"type": "function", "function": tool}]}, "tools", "uniqueItems")
        call, = self.chat(tools=[{"type": "function", "function": {**tool, "strict": False}}], tool_choice="required",
                          )[0]["message"]["tool_calls"]
        self.assertLessEqual(len(json.loads(call["function"]["arguments"])["on"]), 2)


class CommandLine(CliTest):
    @classmethod
    def setUpClass(cls):
        if missing := grammars_missing():
            raise unittest.SkipTest(missing)
        super().setUpClass()

    def test_a_text_matches_what_is_asked(self):
        (self.tmp / "schema.json").write_text(json.dumps(PERSON))
        (self.tmp / "rules.gbnf").write_text("root ::= \"up\" | \"down\" # two\n")
        for args, pattern in ((["--regex", "[12][0-9]{3}"], "[12][0-9]{3}"), (["--grammar", self.tmp / "rules.gbnf"], "up|down")):
            said = json.loads(self.ok("run", self.demo, "-p", "In ", "--json", *args).stdout)
            self.assertRegex(said["text"], re.compile(f"\\A({pattern})\\Z"))
            self.assertEqual(said["finish_reason"], "stop")
        said = json.loads(self.ok("run", self.demo, "-p", "In ", "--json", "-n", 500, "--seed", 2, "--json-schema",
                                  self.tmp / "schema.json").stdout)
        jsonschema.validate(json.loads(said["text"]), PERSON)

    def test_a_conversation_has_each_answer_in_that_form(self):
        done = upg("chat", DEMO, "--template", "chatml", "--regex", "(yes|no)", "--json", typed="One?\nTwo?\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(len(answers), 2)
        for answer in answers:
            self.assertIn(answer["text"], ("yes", "no"))

    def test_mistakes_are_told(self):
        self.refused("run", self.demo, "-p", "a", "--regex", "(?=a)b", says="Lookahead")
        self.refused("run", self.demo, "-p", "a", "--json-schema", self.tmp / "nothing.json", says="cannot be read")
        self.refused("run", self.demo, "-p", "a", "--regex", "a", "--grammar", "b", status=2, says="excludes")


if __name__ == "__main__":
    main()
