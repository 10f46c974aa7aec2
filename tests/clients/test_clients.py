#!/usr/bin/env python3
"""Unchanged clients talk with upg serve: openai, anthropic, litellm, langchain-openai; node.mjs has those for Node.

  test_clients.py [TEST...]      the program is $UPG, or build/release/upg; ./dev test --clients installs the packages
"""
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

from cli import ROOT, main  # noqa: E402
from serving import Server, copy_calling_model  # noqa: E402
from test_serve import HELLO, TOOL  # noqa: E402

NODE_MODULES = pathlib.Path(os.environ.get("UPG_NODE_MODULES", ROOT / "build/clients/node_modules"))
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
KEY = "secret"


def needs(package):
    return unittest.skipUnless(importlib.util.find_spec(package), f"{package} is not installed: ./dev test --clients")


class ClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = pathlib.Path(tempfile.mkdtemp(prefix="upg_clients_"))
        cls.addClassCleanup(shutil.rmtree, cls.tmp)
        (cls.tmp / "keys").write_text(KEY)
        cls.server = Server(copy_calling_model(cls.tmp), "--context", 512, "--api-key-file", cls.tmp / "keys",
                            log=cls.tmp / "log")
        cls.addClassCleanup(cls.server.stop)
        cls.base = f"http://{cls.server.host}:{cls.server.port}"


@needs("openai")
class OpenAi(ClientTest):
    def client(self, key=KEY):
        import openai
        return openai.OpenAI(base_url=self.base + "/v1", api_key=key, max_retries=0)

    def test_chat_and_stream(self):
        chat = self.client().chat.completions
        whole = chat.create(model="caller", messages=HELLO, max_tokens=8, seed=1, logprobs=True, top_logprobs=2)
        self.assertEqual(whole.choices[0].finish_reason, "length")
        self.assertEqual(len(whole.choices[0].logprobs.content), 8)
        self.assertEqual(whole.usage.completion_tokens, 8)
        chunks = list(chat.create(model="caller", messages=HELLO, max_tokens=8, seed=1, stream=True,
                                  stream_options={"include_usage": True}))
        self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
                         whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.completion_tokens, 8)

    @needs("pydantic")
    def test_answers_are_parsed_into_pydantic_models(self):
        import typing

        import pydantic

        class Part(pydantic.BaseModel):
            kind: typing.Literal["bolt", "nut"]
            count: int = pydantic.Field(ge=1, le=99)

        class Order(pydantic.BaseModel):
            parts: typing.Annotated[list[Part], pydantic.Field(max_length=3)]
            express: bool | None
            code: str = pydantic.Field(pattern="^[A-Z]{2}-[0-9]{3}$")

        answer = self.client().chat.completions.parse(model="caller", messages=HELLO, response_format=Order,
                                                      max_tokens=350, seed=1)
        self.assertIsInstance(answer.choices[0].message.parsed, Order)
        response = self.client().responses.parse(model="caller", input="Hello", text_format=Order, max_output_tokens=350,
                                                 temperature=1.5)
        self.assertIsInstance(response.output_parsed, Order)
        with self.client().chat.completions.stream(model="caller", messages=HELLO, response_format=Order, max_tokens=350,
                                                   seed=2) as stream:
            events = list(stream)
        self.assertIsInstance(stream.get_final_completion().choices[0].message.parsed, Order)
        self.assertIn("content.done", {event.type for event in events})

    def test_tools(self):
        import openai
        for seed in range(6):
            with self.client().chat.completions.stream(model="caller", messages=HELLO, tools=[TOOL], seed=seed,
                                                       tool_choice="required", max_tokens=200, temperature=0.4) as stream:
                try:
                    events = list(stream)
                    message = stream.get_final_completion().choices[0]
                except openai.LengthFinishReasonError:
                    continue
            if message.finish_reason == "tool_calls":
                break
        self.assertIn("tool_calls.function.arguments.done", {event.type for event in events})
        call, = message.message.tool_calls
        self.assertEqual(call.function.name, "weather")
        self.assertIsInstance(json.loads(call.function.arguments), dict)

    def test_completions_embeddings_models(self):
        client = self.client()
        done = client.completions.create(model="caller", prompt=["Once", "A"], max_tokens=3, echo=True, logprobs=1)
        self.assertEqual(len(done.choices), 2)
        self.assertIsNone(done.choices[0].logprobs.token_logprobs[0])
        vectors = client.embeddings.create(model="caller", input=["a", "b"]).data
        self.assertEqual(len(vectors[0].embedding), 256)
        floats = client.embeddings.create(model="caller", input="a", encoding_format="float").data[0].embedding
        self.assertAlmostEqual(floats[0], vectors[0].embedding[0], places=5)
        self.assertEqual([model.id for model in client.models.list()], ["caller"])
        self.assertEqual(client.models.retrieve("caller").id, "caller")

    def test_responses(self):
        client = self.client().responses
        whole = client.create(model="caller", input="Hello", max_output_tokens=8, temperature=0)
        self.assertEqual(whole.status, "incomplete")
        with client.stream(model="caller", input="Hello", max_output_tokens=8, temperature=0) as stream:
            types = [event.type for event in stream]
        self.assertEqual(types[-1], "response.incomplete")
        streamed = list(client.create(model="caller", input="Hello", max_output_tokens=8, temperature=0, stream=True))
        self.assertEqual(streamed[-1].response.output_text, whole.output_text)

    def test_errors(self):
        import openai
        with self.assertRaises(openai.AuthenticationError):
            self.client("wrong").models.list()
        with self.assertRaises(openai.NotFoundError):
            self.client().models.retrieve("other")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client().chat.completions.create(model="caller", messages=HELLO, temperature=-1)
        self.assertEqual(caught.exception.param, "temperature")


@needs("anthropic")
class Anthropic(ClientTest):
    def client(self, key=KEY):
        import anthropic
        return anthropic.Anthropic(base_url=self.base, api_key=key, max_retries=0)

    def test_messages_and_stream(self):
        ask = {"model": "caller", "messages": HELLO, "max_tokens": 8, "system": "Be brief.", "extra_body": {"temperature": 0}}
        whole = self.client().messages.create(**ask)
        self.assertEqual(whole.stop_reason, "max_tokens")
        with self.client().messages.stream(**ask) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        self.assertEqual(text, whole.content[0].text)
        self.assertEqual(final.usage.output_tokens, 8)
        count = self.client().messages.count_tokens(model="caller", messages=HELLO, system="Be brief.")
        self.assertEqual(count.input_tokens, whole.usage.input_tokens + whole.usage.cache_read_input_tokens)

    def test_tools(self):
        tools = [{"name": "weather", "description": "d", "input_schema": {"type": "object"}}]
        for seed in range(6):
            with self.client().messages.stream(model="caller", messages=HELLO, tools=tools, max_tokens=200,
                                               tool_choice={"type": "any"},
                                               extra_body={"seed": seed, "temperature": 0.4}) as stream:
                message = stream.get_final_message()
            if message.stop_reason == "tool_use":
                break
        use = message.content[-1]
        self.assertEqual((use.type, use.name), ("tool_use", "weather"))
        turn = HELLO + [{"role": "assistant", "content": message.content},
                        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]}]
        self.client().messages.create(model="caller", messages=turn, tools=tools, max_tokens=4)

    def test_errors(self):
        import anthropic
        with self.assertRaises(anthropic.AuthenticationError):
            self.client("wrong").messages.create(model="caller", messages=HELLO, max_tokens=1)
        with self.assertRaises(anthropic.BadRequestError):
            self.client().messages.create(model="caller", messages=HELLO, max_tokens=1, extra_body={"temperature": -1})


@needs("litellm")
class LiteLlm(ClientTest):
    def test_chat_and_stream(self):
        import litellm
        ask = {"model": "openai/caller", "api_base": self.base + "/v1", "api_key": KEY, "messages": HELLO,
               "max_tokens": 6, "temperature": 0}
        whole = litellm.completion(**ask)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**ask, stream=True))
        self.assertEqual(text, whole.choices[0].message.content)
        with self.assertRaises(litellm.exceptions.BadRequestError):
            litellm.completion(**{**ask, "messages": [{"role": "king", "content": "x"}]}, num_retries=0)


@needs("langchain_openai")
class LangChain(ClientTest):
    def test_chat_stream_and_tools(self):
        from langchain_openai import ChatOpenAI
        chat = ChatOpenAI(model="caller", base_url=self.base + "/v1", api_key=KEY, max_tokens=6, temperature=0)
        whole = chat.invoke("Hello").content
        self.assertEqual("".join(chunk.content for chunk in chat.stream("Hello")), whole)
        caller = ChatOpenAI(model="caller", base_url=self.base + "/v1", api_key=KEY, max_tokens=200, temperature=0.4)
        for seed in range(6):
            answer = caller.bind_tools([TOOL], tool_choice="weather").bind(seed=seed).invoke("Hello")
            if answer.tool_calls:
                break
        self.assertEqual(answer.tool_calls[0]["name"], "weather")

    def test_embeddings(self):
        from langchain_openai import OpenAIEmbeddings
        embedder = OpenAIEmbeddings(model="caller", base_url=self.base + "/v1", api_key=KEY,
                                    check_embedding_ctx_length=False)
        self.assertEqual(len(embedder.embed_documents(["a", "b"])[1]), 256)


@unittest.skipUnless(shutil.which("node") and NODE_MODULES.is_dir(), "no Node packages: ./dev test --clients")
class Node(ClientTest):
    def test_node_clients(self):
        script = NODE_MODULES.parent / "upg_clients.mjs"  # modules are looked for from where the script lies
        shutil.copy(HERE / "node.mjs", script)
        done = subprocess.run(["node", str(script), self.base, KEY], capture_output=True, text=True, timeout=300,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("all clients passed", done.stdout)


@unittest.skipUnless(shutil.which("schemathesis"), "schemathesis is not on the PATH: ./dev test --clients")
class Schema(ClientTest):
    def test_no_request_that_the_description_allows_is_a_fault_of_the_server(self):
        done = subprocess.run(
            ["schemathesis", "run", self.base + "/openapi.json", "-H", f"Authorization: Bearer {KEY}", "--checks",
             "not_a_server_error", "--max-examples", "40", "--workers", "2", "--request-timeout", "60", "--seed", "1"],
            capture_output=True, text=True, timeout=900, check=False, cwd=self.tmp)
        self.assertEqual(done.returncode, 0, done.stdout[-4000:] + done.stderr[-1000:])


if __name__ == "__main__":
    main()
