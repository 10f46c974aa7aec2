#!/usr/bin/env python3
"""What upg serve refuses, cuts off, survives and shuts down. Standard library only.

  test_serve_limits.py [TEST...]      the program is $UPG, or build/release/upg of this repository
"""
import base64
import json
import pathlib
import shutil
import signal
import socket
import tempfile
import threading
import time
import unittest

from cli import DEMO, SMALL, main, upg
from serving import Answer, Server

HELLO = [{"role": "user", "content": "Hello"}]
LONG = {"messages": HELLO, "max_tokens": 900, "ignore_eos": True}


class LimitsTest(unittest.TestCase):
    ARGS = (DEMO,)

    @classmethod
    def setUpClass(cls):
        cls.tmp = pathlib.Path(tempfile.mkdtemp(prefix="upg_serve_"))
        cls.addClassCleanup(shutil.rmtree, cls.tmp)
        cls.server = Server(*cls.args(), log=cls.tmp / "log")
        cls.addClassCleanup(cls.server.stop)

    @classmethod
    def args(cls):
        return cls.ARGS

    def status(self, method, path, **kwargs):
        return self.server.ask(method, path, **kwargs).status

    def raw(self, data, timeout=20):
        """All that comes back for these bytes."""
        with socket.create_connection((self.server.host, self.server.port), timeout=timeout) as connection:
            connection.sendall(data)
            received = b""
            while True:
                try:
                    piece = connection.recv(65536)
                except ConnectionResetError:
                    break
                if not piece:
                    break
                received += piece
            return received.decode(errors="replace")


class Clients(LimitsTest):
    def test_a_client_that_leaves_a_stream_ends_its_generation(self):
        cancelled = self.server.metric("upg_generations_cancelled_total")
        for path in ("/v1/chat/completions", "/v1/messages"):
            connection, response = self.server.start_stream(path, LONG)
            response.close()
            connection.close()
        self.server.wait_metric("upg_generations_running", 0)
        self.server.wait_metric("upg_generations_cancelled_total", cancelled + 2)

    def test_a_client_that_leaves_before_its_answer_ends_its_generation(self):
        cancelled = self.server.metric("upg_generations_cancelled_total")
        connection = self.server.connect()
        connection.request("POST", "/v1/chat/completions", json.dumps(LONG), {"Content-Type": "application/json"})
        self.server.wait_metric("upg_generations_running", 1)
        connection.close()
        self.server.wait_metric("upg_generations_running", 0)
        self.server.wait_metric("upg_generations_cancelled_total", cancelled + 1)

    def test_health_answers_while_many_connections_are_idle(self):
        idle = [socket.create_connection((self.server.host, self.server.port)) for _ in range(400)]
        half = idle[:200]
        for connection in half:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost:")
        try:
            for _ in range(3):
                self.assertEqual(self.status("GET", "/health"), 200)
        finally:
            for connection in idle:
                connection.close()


class Requests(LimitsTest):
    def test_health_answers_while_more_requests_than_connections_never_end(self):
        slow = []
        try:
            for i in range(700):
                slow.append(socket.create_connection((self.server.host, self.server.port)))
                slow[-1].sendall(b"GET /health HTTP/1.1\r\nX: " if i % 2 else
                                 b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                                 b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
            for _ in range(5):
                self.assertEqual(self.status("GET", "/health"), 200)
        finally:
            for connection in slow:
                connection.close()

    def test_hosts_of_others_are_refused(self):
        self.assertEqual(self.status("GET", "/v1/models", headers={"Host": "evil.example"}), 403)
        self.assertEqual(self.status("GET", "/v1/models", headers={"Host": "127.0.0.1.evil.example:80"}), 403)
        for host in ("localhost", f"localhost:{self.server.port}", "[::1]:9", "127.0.0.1"):
            self.assertEqual(self.status("GET", "/v1/models", headers={"Host": host}), 200, host)

    def test_pages_of_others_are_refused_and_cors_is_off(self):
        self.assertEqual(self.status("GET", "/v1/models", headers={"Origin": "https://evil.example"}), 403)
        own = self.server.get("/v1/models", headers={"Origin": f"http://{self.server.host}:{self.server.port}"})
        self.assertEqual(own.status, 200)
        self.assertNotIn("access-control-allow-origin", own.headers)
        self.assertEqual(self.status("OPTIONS", "/v1/models", headers={"Origin": "https://evil.example"}), 403)

    def test_a_body_that_is_no_json_is_refused(self):
        for raw in ("", "{", "[]", "nul", '{"a": 1e999}', '{"a": "\ud800"}'.encode("utf-8", "surrogatepass"),
                    "[" * 65 + "]" * 65, "[" * 100000, json.dumps({str(i): i for i in range(4097)})):
            answer = self.server.post("/v1/chat/completions", raw=raw)
            self.assertEqual(answer.status, 400, raw[:20])
            self.assertEqual(answer.json["error"]["type"], "invalid_request_error")

    def test_another_type_of_content_is_refused(self):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
            self.assertEqual(self.status("POST", "/tokenize", raw='{"content": "a"}', headers={"Content-Type": kind}), 415)
        self.assertEqual(self.status("POST", "/tokenize", raw="x", headers={"Content-Encoding": "gzip"}), 415)

    def test_unknown_paths_and_methods_are_refused(self):
        self.assertEqual(self.status("GET", "/v1/nothing"), 404)
        self.assertEqual(self.status("GET", "/v1/chat/completions"), 405)
        for method in ("DELETE", "PUT", "PATCH"):
            self.assertEqual(self.status(method, "/v1/models", raw="{}"), 405)
        self.assertEqual(self.server.ask("HEAD", "/health").status, 200)
        self.assertEqual(self.server.get("/v1/models/" + "x" * 5000).status, 404)

    def test_sizes_are_limited(self):
        host = f"Host: {self.server.host}\r\n"
        post = f"POST /tokenize HTTP/1.1\r\n{host}Content-Type: application/json\r\n"
        long = self.raw((post + f"Content-Length: {1 << 30}\r\n\r\n").encode())
        self.assertIn("413", long.splitlines()[0])
        self.assertIn("16777216", long)
        self.assertIn("431", self.raw((f"GET /health HTTP/1.1\r\n{host}X: " + "x" * 40000 + "\r\n\r\n").encode()))
        self.assertIn("411", self.raw((post + "\r\n").encode()))
        self.assertIn(" 400 ", self.raw((post + "Content-Length: 3\r\nContent-Length: 4\r\n\r\n").encode()))
        self.assertIn(" 400 ", self.raw((post + "Content-Length: -3\r\n\r\n").encode()))
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        self.assertIn(" 413 ", self.raw((post + "Transfer-Encoding: chunked\r\n\r\n").encode() + chunk * 20))
        small = b'e\r\n{"content":"a"\r\n1\r\n}\r\n0\r\n\r\n'
        chunked = (post + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n").encode() + small
        self.assertIn(" 200 ", self.raw(chunked).splitlines()[0])

    def test_odd_requests_do_no_harm(self):
        for data in (b"\0" * 100 + b"\r\n\r\n", b"GET\r\n\r\n", b"GET /%ff%00%2e%2e HTTP/1.1\r\nHost: localhost\r\n\r\n",
                     b"GET /health HTTP/9.9\r\n\r\n", b"\r\n\r\n\r\n\r\n",
                     b"GET /health HTTP/1.1\r\nHost: localhost\r\nRange: bytes=" + b"0-1," * 7000 + b"\r\n\r\n"):
            with socket.create_connection((self.server.host, self.server.port), timeout=20) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
        self.assertEqual(self.status("GET", "/health"), 200)

    def test_a_refused_body_is_not_taken_for_the_next_request(self):
        body = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
        received = self.raw(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.assertEqual(received.count("HTTP/1.1"), 1)
        self.assertIn("404", received)


class Keys(LimitsTest):
    @classmethod
    def args(cls):
        keys = cls.tmp / "keys"
        keys.write_text("# of the tests\nsecret-1\nsecret-2\n")
        return DEMO, "--api-key-file", keys, "--cors", "https://app.example"

    def test_every_route_but_health_needs_a_key(self):
        self.assertEqual(self.status("GET", "/health"), 200)
        for path in ("/", "/v1/models", "/metrics", "/openapi.json"):
            self.assertEqual(self.status("GET", path), 401)
        self.assertEqual(self.status("POST", "/v1/chat/completions", body={"messages": HELLO}), 401)
        self.assertEqual(self.server.post("/v1/messages", {}).json["error"]["type"], "authentication_error")
        self.assertEqual(self.server.get("/v1/models").json["error"]["code"], "missing_api_key")
        self.assertTrue(self.server.get("/v1/models").headers["www-authenticate"].startswith("Bearer"))

    def test_a_browser_that_opens_the_page_asks_for_the_key(self):
        self.assertTrue(self.server.get("/").headers["www-authenticate"].startswith("Basic"))
        basic = base64.b64encode(b"me:secret-2").decode()
        self.assertEqual(self.status("GET", "/", headers={"Authorization": f"Basic {basic}"}), 200)

    def test_a_key_is_taken_from_either_header(self):
        for headers in ({"Authorization": "Bearer secret-1"}, {"x-api-key": "secret-2"}, {"authorization": "bearer secret-2"}):
            self.assertEqual(self.status("GET", "/v1/models", headers=headers), 200)
        for headers in ({"Authorization": "Bearer secret-3"}, {"x-api-key": "secret"}, {"x-api-key": "secret-11"},
                        {"Authorization": "secret-1"}, {"x-api-key": "# of the tests"}):
            self.assertEqual(self.status("GET", "/v1/models", headers=headers), 401)

    def test_pages_of_the_named_origin_are_let_in(self):
        origin = {"Origin": "https://app.example", "x-api-key": "secret-1"}
        answer = self.server.get("/v1/models", headers=origin)
        self.assertEqual((answer.status, answer.headers["access-control-allow-origin"]), (200, "https://app.example"))
        preflight = self.server.ask("OPTIONS", "/v1/chat/completions", headers={
            "Origin": "https://app.example", "Access-Control-Request-Headers": "authorization"})
        self.assertEqual(preflight.status, 204)
        self.assertEqual(preflight.headers["access-control-allow-headers"], "authorization")
        self.assertEqual(self.status("GET", "/v1/models", headers={**origin, "Origin": "https://evil.example"}), 403)


class Queue(LimitsTest):
    ARGS = (DEMO, "--parallel", 1, "--queue", 1)

    def test_a_full_queue_is_said_with_status_429(self):
        streams = [self.server.start_stream("/v1/chat/completions", LONG)]
        self.server.wait_metric("upg_generations_running", 1)
        waiting = threading.Thread(target=self.server.post, args=("/v1/completions", {"prompt": "a", "max_tokens": 1}))
        waiting.start()
        self.server.wait_metric("upg_generations_waiting", 1)
        busy = self.server.post("/v1/chat/completions", {"messages": HELLO})
        self.assertEqual(busy.status, 429, busy.body)
        self.assertEqual(busy.json["error"]["type"], "rate_limit_error")
        self.assertTrue(busy.headers["retry-after"].isdigit())
        self.assertEqual(self.server.metric("upg_overloaded"), 1)
        for connection, response in streams:
            response.close()
            connection.close()
        waiting.join()


class QueueTime(LimitsTest):
    ARGS = (DEMO, "--parallel", 1, "--queue-time", 0)

    def test_who_waits_too_long_gets_status_429_in_place_of_a_stream(self):
        connection, response = self.server.start_stream("/v1/chat/completions", LONG)
        for path, body in (("/v1/chat/completions", {"messages": HELLO, "stream": True}),
                           ("/v1/completions", {"prompt": "a", "stream": True}),
                           ("/v1/responses", {"input": "a", "stream": True}),
                           ("/v1/messages", {"messages": HELLO, "max_tokens": 1, "stream": True})):
            refused = self.server.post(path, body)
            self.assertEqual((refused.status, refused.headers["retry-after"].isdigit()), (429, True), refused.body)
        response.close()
        connection.close()


class Folder(LimitsTest):
    @classmethod
    def args(cls):
        folder = cls.tmp / "models"
        folder.mkdir()
        (folder / "demo").symlink_to(DEMO)
        done = upg("compress", SMALL, "-o", folder / "small.upg", "--calibrate", "none", "--codec", "trellis2")
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        (folder / "broken.upg").write_text("nothing")
        return "--models", folder, "--idle-unload", 1

    def test_models_are_loaded_by_name_and_go_when_idle(self):
        self.assertEqual([m["id"] for m in self.server.get("/v1/models").json["data"]], ["broken", "demo", "small"])
        answer = self.server.post("/v1/completions", {"model": "demo", "prompt": "a", "max_tokens": 2})
        self.assertEqual(answer.json["model"], "demo")
        self.assertIn('upg_generations_running{model="demo"}', self.server.get("/metrics").body)
        end = time.monotonic() + 10
        while 'model="demo"' in self.server.get("/metrics").body and time.monotonic() < end:
            time.sleep(0.1)
        self.assertNotIn('model="demo"', self.server.get("/metrics").body)
        self.assertEqual(self.server.post("/v1/completions", {"model": "demo", "prompt": "a"}).status, 200)

    def test_other_names_are_refused(self):
        for name in ("other", "../models/demo", ""):
            answer = self.server.post("/v1/completions", {"model": name, "prompt": "a"})
            self.assertEqual((answer.status, answer.json["error"]["code"]), (404, "model_not_found"))
        self.assertEqual(self.server.post("/v1/completions", {"prompt": "a"}).json["error"]["param"], "model")

    def test_a_model_that_cannot_be_loaded_says_why(self):
        answer = self.server.post("/v1/completions", {"model": "broken", "prompt": "a"})
        self.assertEqual(answer.status, 500)
        self.assertIn("broken.upg", answer.json["error"]["message"])
        self.assertEqual(self.status("GET", "/health"), 200)


class Stopping(unittest.TestCase):
    def setUp(self):
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="upg_serve_"))
        self.addCleanup(shutil.rmtree, self.tmp)

    def serve(self, *args):
        server = Server(*args, log=self.tmp / "log")
        self.addCleanup(server.stop)
        return server

    def test_a_signal_lets_what_has_begun_end_and_refuses_the_rest(self):
        server = self.serve(DEMO)
        connection, response = server.start_stream("/v1/chat/completions", {**LONG, "max_tokens": 300})
        server.terminate()
        end = time.monotonic() + 5
        while server.get("/health").status == 200 and time.monotonic() < end:
            time.sleep(0.01)
        refused = server.post("/v1/chat/completions", {"messages": HELLO})
        self.assertEqual(refused.status, 503)
        self.assertTrue(Answer(response).body.endswith("data: [DONE]\n\n"))
        connection.close()
        self.assertEqual(server.process.wait(timeout=20), 0)
        self.assertTrue(server.logged().endswith("stopped\n"))

    def test_without_requests_it_ends_at_once(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.serve(DEMO)
            idle = socket.create_connection((server.host, server.port))
            start = time.monotonic()
            server.process.send_signal(number)
            self.assertEqual(server.process.wait(timeout=10), 0)
            self.assertLess(time.monotonic() - start, 3)
            idle.close()

    def test_mistakes_in_the_command_line_are_said(self):
        for args, status, says in (((), 2, "MODEL or --models"), ((DEMO, "--models", "x"), 2, "excludes"),
                                   (("--models", self.tmp), 1, "no *.upg"), ((DEMO, "--port", 70000), 2, "--port"),
                                   ((DEMO, "--api-key-file", self.tmp / "x"), 1, "cannot be read"),
                                   ((DEMO, "--host", "203.0.113.1"), 1, "cannot listen"),
                                   ((DEMO, "--context", 1 << 20), 1, "context")):
            done = upg("serve", *args)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(says, done.stderr)
        taken = self.serve(DEMO)
        self.assertIn("cannot listen", upg("serve", DEMO, "--port", taken.port).stderr)

    def test_an_alias_and_another_address(self):
        server = self.serve(DEMO, "--alias", "other", "--host", "0.0.0.0")
        server.host = "127.0.0.1"
        self.assertEqual(server.get("/v1/models", headers={"Host": "a.name"}).json["data"][0]["id"], "other")
        self.assertIn("warning", server.logged())

    def test_prompts_are_logged_when_asked_for(self):
        server = self.serve(DEMO, "--log-prompts")
        server.post("/tokenize", {"content": "xyzzy"})
        self.assertIn("xyzzy", server.logged())


if __name__ == "__main__":
    main()
