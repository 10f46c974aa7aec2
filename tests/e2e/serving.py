"""A server for tests: started on a free port, asked over plain sockets and http.client."""
import http.client
import json
import re
import select
import shutil
import signal
import subprocess
import time

from cli import DEMO, UPG

CALL_TEMPLATE = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}<|im_sep|>{{ m['content'] }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}"
    "</tool_call>{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}")


def copy_calling_model(folder):
    """The path of a copy of the demo, `folder`/caller, whose chat template knows tools and their calls."""
    model = folder / "caller"
    shutil.copytree(DEMO, model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["chat_template"] = CALL_TEMPLATE
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    return model


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read().decode()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def events(self):
        """(event, data) of an event stream; data is parsed where it is JSON."""
        found = []
        for block in self.body.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "data" in fields:
                data = fields["data"]
                found.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
        return found


class Server:
    def __init__(self, *args, log):
        self.log_path = log
        self.log = open(log, "w", encoding="utf-8")
        self.process = subprocess.Popen([UPG, "serve", *map(str, args), "--port", "0"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.log)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            started = re.search(r"serving .* at http://(.*):(\d+)", self.logged())
            if started:
                self.host, self.port = started.group(1).strip("[]"), int(started.group(2))
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the server did not start: {self.logged()}")

    def logged(self):
        return self.log_path.read_text(encoding="utf-8")

    def connect(self, timeout=60):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def ask(self, method, path, body=None, headers=None, raw=None):
        connection = self.connect()
        data = raw if raw is not None else None if body is None else json.dumps(body)
        connection.request(method, path, data,
                           {**({"Content-Type": "application/json"} if data is not None else {}), **(headers or {})})
        answer = Answer(connection.getresponse())
        connection.close()
        return answer

    def get(self, path, **kwargs):
        return self.ask("GET", path, **kwargs)

    def post(self, path, body=None, **kwargs):
        return self.ask("POST", path, body, **kwargs)

    def metric(self, name):
        """The sum over labels."""
        lines = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", self.get("/metrics").body, re.MULTILINE)
        return sum(map(float, lines))

    def wait_metric(self, name, value, seconds=10):
        end = time.monotonic() + seconds
        while self.metric(name) != value:
            if time.monotonic() > end:
                raise AssertionError(f"{name} is {self.metric(name)}, not {value}")
            time.sleep(0.02)

    def start_stream(self, path, body):
        """A connection whose response has begun: headers and a first piece are read."""
        connection = self.connect()
        connection.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise AssertionError(response.read())
        select.select([connection.sock] if connection.sock else [], [], [], 5)
        response.readline()
        return connection, response

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        if self.process.poll() is None:
            self.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.log.close()
