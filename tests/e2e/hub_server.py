"""A hub for tests, on two ports: one that answers as a hub does, one that has the large files as a CDN does. It keeps a
log of requests and fails on purpose, as a test asks."""
import hashlib
import http.server
import json
import re
import socket
import ssl
import threading
import time
import urllib.parse

PAGE = 4  # entries a page of a listing


def blob_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Repository:
    def __init__(self, files, large=lambda name: name.endswith((".safetensors", ".upg")), commit=None):
        self.files = dict(files)
        self.large = large
        self.commit = commit or hashlib.sha1("".join(sorted(files)).encode()).hexdigest()
        self.refs = {"main": self.commit}
        self.listed = {}  # name: fields of the listing that are others than they should be
        self.extra = []   # entries that have no file
        self.gated = self.private = None  # the token that is asked for

    @classmethod
    def of_folder(cls, folder, **kwargs):
        return cls({p.name: p.read_bytes() for p in folder.iterdir() if p.name != "golden.safetensors"}, **kwargs)

    def oid(self, name):
        data = self.files[name]
        return hashlib.sha256(data).hexdigest() if self.large(name) else blob_sha1(data)

    def listing(self):
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "folder"}]
        for name, data in self.files.items():
            entry = {"type": "file", "oid": blob_sha1(data), "size": len(data), "path": name}
            if self.large(name):
                entry["lfs"] = {"oid": self.oid(name), "size": len(data), "pointerSize": 134}
            entries.append({**entry, **self.listed.get(name, {})})
        return entries + self.extra


class Fault:
    """How a file comes out wrong. Lists are used up, an item an answer."""

    def __init__(self, cut=(), status=(), corrupt=False, ignore_range=False, new_etags=False, length=None, loop=False,
                 redirect=None, stall=0, more=b"", encoding=None, range_shift=0, headers=None):
        self.cut = list(cut)        # bytes of the body that are sent before the connection ends
        self.status = list(status)  # (status, headers)
        self.corrupt = corrupt
        self.ignore_range = ignore_range
        self.new_etags = new_etags
        self.length = length        # what Content-Length says
        self.loop = loop
        self.redirect = redirect
        self.stall = stall          # answers that send half, then nothing until the client goes
        self.more = more            # bytes after the end
        self.encoding = encoding
        self.range_shift = range_shift
        self.headers = headers or {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.hub = self.server.hub
        with self.hub.lock:
            self.hub.log.append((self.server.role, self.path, dict(self.headers)))
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        if self.server.role == "cdn":
            return self.cdn(path)
        for pattern, answer in ((r"/api/models/([^/]+/[^/]+)/revision/(.+)", self.revision),
                                (r"/api/models/([^/]+/[^/]+)/tree/(.+)", self.tree),
                                (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve)):
            found = re.fullmatch(pattern, path)
            if found:
                return answer(*found.groups())
        self.say(404, b"no such page")

    def say(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def say_json(self, value, headers=None):
        self.say(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def repository(self, name):
        """None, and an answer was given, where it is not to be seen."""
        repository = self.hub.repositories.get(name)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository and repository.gated and token != repository.gated:
            self.say(401 if not token else 403, b"{}", {"X-Error-Code": "GatedRepo"})
            return None
        if repository is None or (repository.private and token != repository.private):
            self.say(401 if not token else 404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def api_fault(self, kind):
        with self.hub.lock:
            fault = self.hub.api_faults.get(kind)
            if fault is None or not fault.status:
                return False
            status, headers = fault.status.pop(0)
        self.say(status, b"busy", headers)
        return True

    def revision(self, name, revision):
        if self.api_fault("revision"):
            return
        repository = self.repository(name)
        if repository:
            commit = repository.commit if revision == repository.commit else repository.refs.get(revision)
            if commit is None:
                return self.say(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            self.say_json({"id": name, "sha": commit, "siblings": [{"rfilename": f} for f in repository.files]})

    def tree(self, name, revision):
        if self.api_fault("tree"):
            return
        repository = self.repository(name)
        if repository:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            start = int(query.get("cursor", ["0"])[0])
            entries = repository.listing()
            headers = {}
            if start + PAGE < len(entries):
                following = f"{self.hub.endpoint}/api/models/{name}/tree/{revision}?recursive=true&cursor={start + PAGE}"
                headers["Link"] = f'<{following}>; rel="next"'
            self.say_json(entries[start:start + PAGE], headers)

    def resolve(self, name, commit, file):
        repository = self.repository(name)
        if not repository:
            return
        if file not in repository.files:
            return self.say(404, b"", {"X-Error-Code": "EntryNotFound"})
        fault = self.hub.faults.get(file, Fault())
        data = repository.files[file]
        about = {"X-Repo-Commit": commit, **fault.headers}
        if fault.loop:
            return self.say(302, b"", {"Location": self.path})
        if fault.redirect:
            return self.say(302, b"", {"Location": fault.redirect})
        if repository.large(file):
            location = f"{self.hub.cdn_endpoint}/{name}/{urllib.parse.quote(file)}?signature=secret"
            return self.say(302, b"moved", {"Location": location, "X-Linked-Etag": f'"{repository.oid(file)}"',
                                            "X-Linked-Size": str(len(data)), "ETag": f'"{repository.oid(file)}"',
                                            **about})
        self.send_file(file, data, {"ETag": f'"{repository.oid(file)}"', **about})

    def cdn(self, path):
        _, organisation, name, file = path.split("/", 3)
        data = self.hub.repositories[f"{organisation}/{name}"].files[file]
        self.send_file(file, data, {"ETag": f'"cdn-{hashlib.md5(data).hexdigest()}"'})

    def send_file(self, file, data, headers):
        with self.hub.lock:
            fault = self.hub.faults.get(file, Fault())
            status = fault.status.pop(0) if fault.status else None
            cut = fault.cut.pop(0) if fault.cut else None
            stall = fault.stall > 0
            fault.stall -= stall
        if status:
            return self.say(status[0], b"an error", status[1])
        if fault.corrupt:
            data = data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1:]
        if fault.new_etags:
            headers = {**headers, "ETag": f'"{time.monotonic_ns()}"'}
        if fault.encoding:
            headers = {**headers, "Content-Encoding": fault.encoding}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", headers["ETag"]) == headers["ETag"]
        body, answer = data, 200
        if asked and same and not fault.ignore_range:
            begin, end = int(asked[1]), int(asked[2]) + 1 if asked[2] else len(data)
            if begin >= len(data):
                return self.say(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            begin += fault.range_shift
            body, answer = data[begin:end], 206
            headers = {**headers, "Content-Range": f"bytes {begin}-{begin + len(body) - 1}/{len(data)}"}
        body += fault.more
        self.send_response(answer)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if fault.length is None else fault.length))
        self.end_headers()
        if self.command == "HEAD":
            return
        if stall:
            self.wfile.write(body[:len(body) // 2])
            self.wfile.flush()
            self.connection.settimeout(60)
            self.rfile.read(1)  # ends when the client goes
            self.close_connection = True
            return
        pace = self.hub.pace
        body = body if cut is None else body[:cut]
        for at in range(0, len(body), 1 << 16):
            self.wfile.write(body[at:at + (1 << 16)])
            if pace:
                time.sleep(pace)
        if cut is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True


class Hub:
    def __init__(self, certificates=None):
        """`certificates`: of the hub and of the CDN, each a path or None for plain HTTP."""
        self.repositories, self.faults, self.api_faults, self.log = {}, {}, {}, []
        self.pace = 0  # seconds between pieces of 64 kB
        self.lock = threading.Lock()
        self.servers = []
        endpoints = []
        for role, certificate in zip(("hub", "cdn"), certificates or (None, None)):
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            server.block_on_close = False
            server.hub, server.role = self, role
            if certificate:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate)
                server.socket = context.wrap_socket(server.socket, server_side=True)
            endpoints.append(f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}")
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            self.servers.append(server)
        self.endpoint, self.cdn_endpoint = endpoints

    def add(self, name, repository):
        self.repositories[name] = repository
        return repository

    def requests(self, part="", role=None):
        with self.lock:
            return [entry for entry in self.log if part in entry[1] and role in (None, entry[0])]

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()
