#!/usr/bin/env python3
"""Models by name: `upg pull` and commands that take ORG/NAME, against a hub of our own that fails on purpose.

  test_hub.py [TEST...]      the program is $UPG, or build/release/upg of this repository
"""
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from cli import DEMO, ROOT, UPG, CliTest, main
from hub_server import Fault, Hub, Repository

SHARDED = ROOT / "tests/data/models/sharded_old_config_bf16"
BIG = "model-00001-of-00002.safetensors"  # of the demo


def has_hub():
    done = subprocess.run([UPG, "pull", "a/b", "--offline"], capture_output=True, text=True)
    return "made without libcurl" not in done.stderr


@unittest.skipUnless(UPG.is_file() and has_hub(), "this build was made without libcurl")
class HubTest(CliTest):
    @classmethod
    def setUpClass(cls):
        cls.tmp = pathlib.Path(tempfile.mkdtemp(prefix="upg_hub_"))
        cls.addClassCleanup(shutil.rmtree, cls.tmp)

    def setUp(self):
        self.hub = Hub()
        self.addCleanup(self.hub.close)
        self.home = pathlib.Path(tempfile.mkdtemp(dir=self.tmp))
        self.cache = self.home / "hf/hub"
        self.env = {"HF_ENDPOINT": self.hub.endpoint, "HF_HOME": str(self.home / "hf"), "HOME": str(self.home),
                    "XDG_CONFIG_HOME": str(self.home / "config"), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
                    **dict.fromkeys(("HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE",
                                     "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "XDG_CACHE_HOME", "http_proxy"), "")}

    def demo(self, name="ours/demo", **kwargs):
        return self.hub.add(name, Repository.of_folder(DEMO, **kwargs))

    def small(self, name="ours/small", **kwargs):
        return self.hub.add(name, Repository.of_folder(SHARDED, **kwargs))

    def pull(self, *args, env=None):
        return json.loads(self.ok("pull", *args, "--json", env={**self.env, **(env or {})}).stdout)

    def refuses(self, *args, env=None, **kwargs):
        return self.refused(*args, env={**self.env, **(env or {})}, **kwargs)

    def folder(self, name):
        return self.cache / ("models--" + name.replace("/", "--"))

    def incomplete(self, name):
        return list(self.folder(name).glob("blobs/*.incomplete"))

    def is_whole(self, report, repository):
        for file in report["files"]:
            self.assertEqual((pathlib.Path(report["path"]) / file["name"]).read_bytes(),
                             repository.files[file["name"]], file["name"])
        self.assertEqual(self.incomplete(report["repository"]), [])


class Pull(HubTest):
    def test_a_model_comes_into_the_cache_and_runs_by_its_name(self):
        repository = self.demo()
        repository.files["README.md"] = b"not part of the model"
        repository.files["consolidated.safetensors"] = b"the same weights for another program"
        report = self.pull("ours/demo")
        self.assertEqual({f["name"] for f in report["files"]}, {p.name for p in DEMO.iterdir()})
        self.assertEqual(report["downloaded"], sum(len(repository.files[f["name"]]) for f in report["files"]))
        self.assertEqual(pathlib.Path(report["path"]), self.folder("ours/demo") / "snapshots" / repository.commit)
        self.assertEqual((self.folder("ours/demo") / "refs/main").read_text(), repository.commit)
        for file in report["files"]:
            link = pathlib.Path(report["path"]) / file["name"]
            self.assertEqual(os.readlink(link), f"../../blobs/{repository.oid(file['name'])}")
        self.is_whole(report, repository)
        again = self.pull("ours/demo")
        self.assertEqual(again["downloaded"], 0)
        self.assertEqual(again["path"], report["path"])
        asked = len(self.hub.requests())
        args = ["-p", "The history", "-n", 4, "--temperature", 0]
        self.assertEqual(self.ok("run", "ours/demo", *args, env=self.env).stdout, self.ok("run", DEMO, *args).stdout)
        self.assertEqual(len(self.hub.requests()), asked, "what the cache has needs no network")

    def test_every_command_with_a_model_takes_a_name(self):
        repository = self.demo()
        text = self.home / "text.txt"
        text.write_text("The history of the city begins with a small settlement on the river. " * 4)
        self.assertEqual(json.loads(self.ok("inspect", "ours/demo", "--json", env=self.env).stdout)["path"],
                         str(self.folder("ours/demo") / "snapshots" / repository.commit))
        self.ok("eval", "ours/demo", "--text", text, "--context", 16, "--chunks", 1, "--reference", "ours/demo",
                env=self.env)
        self.ok("chat", "ours/demo", "--template", "plain", "-p", "Hello", "-n", 2, env=self.env)
        self.ok("bench", "ours/demo", "--prompt", 8, "--context", 8, "--rounds", 1, env=self.env)
        out = self.home / "out.upg"
        self.ok("compress", "ours/demo", "-o", out, "--codec", "int8", "--calibrate", "none", env=self.env)
        self.hub.add("ours/upg", Repository({"demo.upg": out.read_bytes()}))
        self.assertIn("whole", self.ok("verify", "ours/upg", env=self.env).stdout)
        self.ok("decompress", "ours/upg", "-o", self.home / "dense", env=self.env)

    def test_a_path_that_exists_is_a_path(self):
        here = self.home / "ours"
        here.mkdir()
        (here / "demo").symlink_to(DEMO)
        done = subprocess.run([UPG, "inspect", "ours/demo", "--json"], cwd=self.home, env={**os.environ, **self.env},
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(json.loads(done.stdout)["path"], "ours/demo")
        self.assertEqual(self.hub.requests(), [])

    def test_revisions(self):
        repository = self.small()
        old = "1" * 40
        repository.refs["v1/old"] = old
        self.assertEqual(self.pull("ours/small:v1/old")["commit"], old)
        self.assertEqual((self.folder("ours/small") / "refs/v1/old").read_text(), old)
        self.assertEqual(self.pull("ours/small", "--revision", repository.commit)["revision"], repository.commit)
        self.assertIn("there is no revision", self.refuses("pull", "ours/small:v9"))
        self.refuses("pull", "ours/small:a/../b", says="no name of a model")
        self.refuses("pull", "ours/small", "--revision", "../x", says="no revision")
        self.refuses("pull", "ours/small:v1/old", "--revision", "main", says="two revisions")

    def test_a_new_commit_is_pulled_and_the_old_one_stays(self):
        repository = self.small()
        first = self.pull("ours/small")
        repository.files["config.json"] += b"\n"
        repository.commit = repository.refs["main"] = "2" * 40
        second = self.pull("ours/small")
        self.assertEqual(second["downloaded"], len(repository.files["config.json"]), "only what is new")
        self.assertTrue((pathlib.Path(first["path"]) / "config.json").exists())

    def test_one_upg_file_of_a_repository(self):
        files = {"a.upg": b"first", "b.upg": b"second", "README.md": b"both"}
        self.hub.add("ours/two", Repository(files))
        self.refuses("pull", "ours/two", says="a.upg, b.upg. Choose one, as in ours/two/a.upg")
        report = self.pull("ours/two/b.upg")
        self.assertTrue(report["path"].endswith("/b.upg"))
        self.assertEqual(pathlib.Path(report["path"]).read_bytes(), b"second")
        self.refuses("pull", "ours/two/c.upg", says="UPG files there: a.upg, b.upg")
        self.refuses("compress", "ours/two", "-o", self.home / "x.upg", says="no checkpoint to compress")
        both = Repository.of_folder(SHARDED)
        both.files["m.upg"] = b"third"
        self.hub.add("ours/both", both)
        self.assertTrue(self.pull("ours/both")["path"].endswith("/m.upg"))
        self.assertFalse(self.pull("ours/both", "--checkpoint")["path"].endswith(".upg"))

    def test_patterns_choose_files(self):
        self.demo()
        report = self.pull("ours/demo", "--include", "*.json", "--exclude", "token*")
        self.assertEqual({f["name"] for f in report["files"]},
                         {"config.json", "generation_config.json", "model.safetensors.index.json"})
        self.refuses("pull", "ours/demo", "--include", "*.gguf", says="no file matches")

    def test_what_is_no_model_is_named(self):
        self.hub.add("ours/bin", Repository({"config.json": b"{}", "pytorch_model.bin": b"x"}))
        self.refuses("pull", "ours/bin", says="save_pretrained")
        self.hub.add("ours/gguf", Repository({"m.gguf": b"x"}))
        self.refuses("pull", "ours/gguf", says="m.gguf")
        self.hub.add("ours/nothing", Repository({"README.md": b"x"}))
        self.refuses("pull", "ours/nothing", says="there is no model in it")

    def test_endpoints(self):
        self.small()
        none = {"HF_ENDPOINT": ""}
        said = self.refuses("run", "ours/small", "-p", "x", env=none, says="is no path here")
        self.assertIn("HF_ENDPOINT", said)
        config = self.home / "config/upg/config"
        config.parent.mkdir(parents=True)
        self.assertIn(str(config), said)
        config.write_text(f"# where models are\nendpoint = {self.hub.endpoint}/\n")
        self.assertEqual(self.pull("ours/small", env=none)["revision"], "main")
        config.write_text("endpiont = x\n")
        self.refuses("pull", "ours/small", env=none, says=f"{config}:1")
        for wrong in ("ftp://127.0.0.1", "127.0.0.1", "http://u:p@127.0.0.1", "http://"):
            self.refuses("pull", "ours/small", "--endpoint", wrong, says="endpoint")
        self.refuses("pull", "small", says="ORG/NAME")
        nobody = self.refuses("pull", "ours/small", "--endpoint", "http://127.0.0.1:9", "--retries", 0)
        self.assertIn("connect", nobody)

    def test_offline_takes_the_cache_and_nothing_else(self):
        self.small()
        self.refuses("pull", "ours/small", "--offline", says="pull it first")
        path = self.pull("ours/small")["path"]
        asked = len(self.hub.requests())
        self.assertEqual(self.pull("ours/small", "--offline")["path"], path)
        self.assertEqual(self.pull("ours/small", env={"HF_HUB_OFFLINE": "1"})["path"], path)
        os.unlink(os.path.realpath(pathlib.Path(path) / "model-00003-of-00006.safetensors"))
        self.refuses("inspect", "ours/small", "--offline", says="not all of it")
        self.assertEqual(len(self.hub.requests()), asked)
        self.ok("inspect", "ours/small", env=self.env)  # fetches what is missing

    def test_a_proxy_of_the_environment_is_used(self):
        self.small()
        proxy = {"HF_ENDPOINT": "http://hub.invalid", "http_proxy": self.hub.endpoint, "NO_PROXY": "",
                 "no_proxy": ""}
        self.refuses("pull", "ours/small", "--retries", 0, env=proxy)
        self.assertTrue(self.hub.requests("http://hub.invalid/api/models/ours/small/revision/main"))

    def test_two_processes_share_the_work(self):
        repository = self.demo()
        self.hub.pace = 0.005
        args = [UPG, "pull", "ours/demo", "--json"]
        both = [subprocess.Popen(args, env={**os.environ, **self.env}, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        reports = [json.loads(p.communicate(timeout=120)[0]) for p in both]
        self.assertEqual(sum(r["downloaded"] for r in reports), reports[0]["bytes"], "each byte came once")
        self.is_whole(reports[0], repository)

    def test_a_terminal_shows_how_long_it_takes(self):
        self.demo()
        self.hub.pace = 0.012
        control, terminal = os.openpty()
        process = subprocess.Popen([UPG, "pull", "ours/demo"], env={**os.environ, **self.env}, stdout=subprocess.DEVNULL,
                                   stderr=terminal)
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(control, 65536):
                shown += data
        except OSError:  # the end, on Linux
            pass
        os.close(control)
        self.assertEqual(process.wait(timeout=60), 0)
        self.assertRegex(shown.decode(), r"\[#+\.+\] +\d+% +\d+ s left  \d of \d files")

    def test_a_full_disk_is_seen_before_the_download(self):
        repository = self.small()
        repository.listed["model-00001-of-00006.safetensors"] = {
            "lfs": {"oid": "0" * 64, "size": 1 << 45, "pointerSize": 134}}
        self.refuses("pull", "ours/small", says="35184.37 GB are needed")
        self.assertEqual(self.hub.requests(role="cdn"), [])


class Tokens(HubTest):
    def test_gated_and_missing_models_say_what_to_do(self):
        self.small("ours/gated").gated = "hf_right"
        self.small("ours/private").private = "hf_right"
        said = self.refuses("pull", "ours/gated", says="accept the terms")
        self.assertIn("no token is set", said)
        said = self.refuses("pull", "ours/gated", env={"HF_TOKEN": "hf_wrong"}, says="accept the terms")
        self.assertNotIn("hf_wrong", said)
        self.refuses("pull", "ours/private", says="HF_TOKEN")
        self.refuses("pull", "ours/nowhere", env={"HF_TOKEN": "hf_right"}, says="no such model")
        self.pull("ours/gated", env={"HF_TOKEN": " hf_right\n"})

    def test_the_token_goes_to_the_hub_and_not_to_where_it_leads(self):
        self.small("ours/private").private = "hf_secret"
        (self.home / "hf").mkdir()
        (self.home / "hf/token").write_text("hf_secret\n")
        self.pull("ours/private")
        of_hub, of_cdn = self.hub.requests(role="hub"), self.hub.requests(role="cdn")
        self.assertGreaterEqual(len(of_cdn), 6)
        for _, path, headers in of_hub:
            self.assertEqual(headers.get("Authorization"), "Bearer hf_secret", path)
        for _, path, headers in of_cdn:
            self.assertNotIn("Authorization", headers, path)
            self.assertNotIn("hf_secret", json.dumps(headers) + path)

    def test_a_token_that_would_break_a_header_is_refused(self):
        said = self.refuses("pull", "ours/small", env={"HF_TOKEN": "hf_a\r\nX-Evil: 1"}, says="HF_TOKEN")
        self.assertNotIn("Evil", said)


class Failures(HubTest):
    def test_a_cut_connection_is_taken_up_where_it_ended(self):
        repository = self.demo()
        size = len(repository.files[BIG])
        self.hub.faults[BIG] = Fault(cut=[size // 3, size // 3])
        report = self.pull("ours/demo")
        self.is_whole(report, repository)
        self.assertEqual({f["name"]: f["downloaded"] for f in report["files"]}[BIG], size, "no byte came twice")
        ranges = [headers for _, path, headers in self.hub.requests(BIG, "cdn")]
        self.assertNotIn("Range", ranges[0])
        self.assertEqual([h["Range"] for h in ranges[1:]],
                         [f"bytes={size // 3}-{size - 1}", f"bytes={2 * (size // 3)}-{size - 1}"])
        self.assertTrue(all(h["If-Range"].startswith('"cdn-') for h in ranges[1:]))

    def test_an_interrupted_pull_goes_on_with_the_next(self):
        repository = self.demo()
        self.hub.faults[BIG] = Fault(stall=1)
        for signum, status in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
            process = subprocess.Popen([UPG, "pull", "ours/demo", "--json"], env={**os.environ, **self.env},
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            half = len(repository.files[BIG]) // 2
            part = self.folder("ours/demo") / "blobs" / (repository.oid(BIG) + ".incomplete")
            while not part.exists() or part.stat().st_size < half:
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            process.send_signal(signum)
            out, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, status, err)
            self.assertEqual(out, "")
            self.assertFalse((self.folder("ours/demo") / "refs/main").exists())
            self.refuses("inspect", "ours/demo", "--offline", says="pull it first")
            self.hub.faults[BIG].stall = 1
            if signum == signal.SIGINT:
                part.write_bytes(part.read_bytes()[:half - 1000])
        self.hub.faults.clear()
        report = self.pull("ours/demo")
        self.is_whole(report, repository)
        self.assertEqual({f["name"]: f["downloaded"] for f in report["files"]}[BIG],
                         len(repository.files[BIG]) - part_size(self, repository))

    def test_a_partial_file_that_is_wrong_begins_anew(self):
        repository = self.demo()
        part = self.folder("ours/demo") / "blobs" / (repository.oid(BIG) + ".incomplete")
        part.parent.mkdir(parents=True)
        for content in (b"x" * 1000, repository.files[BIG] + b"more"):
            part.write_bytes(content)
            report = self.pull("ours/demo")
            self.is_whole(report, repository)
            shutil.rmtree(self.folder("ours/demo") / "snapshots")
            os.unlink(self.folder("ours/demo") / "blobs" / repository.oid(BIG))

    def test_content_with_another_hash_is_not_kept(self):
        for name, file in (("ours/lfs", BIG), ("ours/text", "tokenizer_config.json")):
            self.demo(name)
            self.hub.faults = {file: Fault(corrupt=True)}
            self.refuses("pull", name, says=f"{file}: its content does not have the hash")
            oid = self.hub.repositories[name].oid(file)
            self.assertFalse((self.folder(name) / "blobs" / oid).exists())
            self.assertFalse((self.folder(name) / "blobs" / (oid + ".incomplete")).exists())
            self.refuses("inspect", name, "--offline", says="pull it first")

    def test_busy_hubs_are_asked_again_when_they_say(self):
        self.small()
        busy = [(429, {"Retry-After": "1"}), (503, {})]
        self.hub.api_faults = {"revision": Fault(status=list(busy)), "tree": Fault(status=list(busy[1:]))}
        self.hub.faults["config.json"] = Fault(status=[(500, {}), (429, {"Retry-After": "0"})])
        self.hub.faults["model-00002-of-00006.safetensors"] = Fault(status=[(503, {})])
        self.pull("ours/small")
        self.assertEqual(len(self.hub.requests("/revision/")), 3)
        self.assertEqual(len(self.hub.requests("config.json")), 3)

    def test_a_hub_that_stays_busy_is_given_up(self):
        self.small()
        self.hub.api_faults["tree"] = Fault(status=[(503, {})] * 9)
        self.refuses("pull", "ours/small", "--retries", 1, says="status 503 (tried 2 times)")
        self.hub.api_faults["tree"] = Fault(status=[(429, {"Retry-After": "86400"})])
        self.refuses("pull", "ours/small", says="asks to wait for 86400 seconds")
        self.hub.api_faults["tree"] = Fault(status=[(400, {})])
        self.refuses("pull", "ours/small", says="status 400")

    def test_redirects_without_end_or_to_elsewhere_are_refused(self):
        self.small()
        self.hub.faults["config.json"] = Fault(loop=True)
        self.refuses("pull", "ours/small", says="from address to address")
        self.assertEqual(len(self.hub.requests("/config.json")), 9)
        for target, said in (("file:///etc/passwd", "not https"), ("ftp://127.0.0.1/x", "not https"),
                             ("http://user:word@127.0.0.1/", "address that is none")):
            self.hub.faults["config.json"] = Fault(redirect=target)
            self.refuses("pull", "ours/small", says=said)

    def test_a_signature_that_has_run_out_is_renewed(self):
        repository = self.small()
        shard = "model-00001-of-00006.safetensors"
        self.hub.faults[shard] = Fault(status=[(403, {})])
        self.is_whole(self.pull("ours/small"), repository)
        self.assertEqual(len(self.hub.requests(f"/resolve/{repository.commit}/{shard}")), 2)

    @unittest.skipUnless(shutil.which("openssl"), "openssl is not installed")
    def test_https_is_checked_and_never_leads_to_http(self):
        certificate = self.home / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", certificate, "-out",
                        self.home / "public.pem", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
                        "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
        with open(certificate, "ab") as both:
            both.write((self.home / "public.pem").read_bytes())
        trusted = {"SSL_CERT_FILE": str(self.home / "public.pem")}
        for cdn, said in ((None, "from https to an address that is not encrypted"), (certificate, None)):
            hub = Hub((certificate, cdn))
            self.addCleanup(hub.close)
            repository = hub.add("ours/small", Repository.of_folder(SHARDED))
            env = {"HF_ENDPOINT": hub.endpoint, **trusted}
            self.refuses("pull", "ours/small", env={**env, "SSL_CERT_FILE": ""}, says="certificate")
            if said:
                self.refuses("pull", "ours/small", env=env, says=said)
                self.assertEqual(hub.requests(role="cdn"), [])
            else:
                self.is_whole(self.pull("ours/small", env=env), repository)

    def test_a_hub_without_ranges_sends_it_all_again(self):
        repository = self.demo()
        self.hub.faults[BIG] = Fault(cut=[5_000_000], ignore_range=True)
        report = self.pull("ours/demo")
        self.is_whole(report, repository)
        self.assertEqual({f["name"]: f["downloaded"] for f in report["files"]}[BIG],
                         len(repository.files[BIG]) + 5_000_000)

    def test_a_file_that_changes_between_two_parts_begins_anew(self):
        repository = self.demo()
        self.hub.faults[BIG] = Fault(cut=[5_000_000], new_etags=True)
        report = self.pull("ours/demo")
        self.is_whole(report, repository)

    def test_answers_that_do_not_fit_the_listing_are_refused(self):
        self.small()
        commit = {"X-Repo-Commit": "9" * 40}
        for fault, said in ((Fault(length=7), "its list says"), (Fault(more=b"!", length=None), "its list says"),
                            (Fault(encoding="gzip"), "encoded"), (Fault(headers=commit), "another file than its list")):
            self.hub.faults["config.json"] = fault
            self.refuses("pull", "ours/small", "--retries", 0, says=said)
        shard = "model-00001-of-00006.safetensors"
        self.hub.faults = {shard: Fault(cut=[50], range_shift=1)}
        self.refuses("pull", "ours/small", "--retries", 1, says="another range")

    def test_a_server_that_says_nothing_more_counts_as_cut(self):
        repository = self.demo()
        self.hub.faults[BIG] = Fault(stall=1)
        self.is_whole(self.pull("ours/demo", env={"HF_HUB_DOWNLOAD_TIMEOUT": "1"}), repository)

    def test_hostile_names_are_refused_before_anything_is_fetched(self):
        for number, name in enumerate(("../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "a\0b", "", "a//b", ".", "x" * 300,
                                       "a\nb", "refs/../../x.safetensors")):
            repository = self.small(f"ours/evil{number}")
            repository.extra.append({"type": "file", "oid": "0" * 40, "size": 1, "path": name})
            self.refuses("pull", f"ours/evil{number}", says="names a file")
            self.assertFalse(self.folder(f"ours/evil{number}").exists())
        self.assertEqual(self.hub.requests("/resolve/"), [])
        repository = self.small("ours/index")
        repository.files["model.safetensors.index.json"] = json.dumps(
            {"weight_map": {"a": "../../../evil.safetensors"}}).encode()
        self.refuses("pull", "ours/index", says="no plain file name")

    def test_listings_that_are_no_listings_are_refused(self):
        for number, fields in enumerate(({"size": -1}, {"size": 1 << 63}, {"size": "1"}, {"oid": "../x"}, {"oid": "A" * 40},
                                         {"lfs": {"oid": "0" * 40, "size": 1}}, {"type": 1}, {"path": 5})):
            repository = self.small(f"ours/odd{number}")
            repository.listed["config.json"] = fields
            self.refuses("pull", f"ours/odd{number}", says="the list of files of")
        repository = self.small("ours/twice")
        repository.extra.append(repository.listing()[1])
        self.refuses("pull", "ours/twice", says="twice")
        repository = self.small("ours/commit")
        repository.refs["main"] = "../../x"
        self.refuses("pull", "ours/commit", says="no commit")


def part_size(test, repository):
    """Bytes of the big shard that an interrupted pull had left."""
    log = [h for _, path, h in test.hub.requests(BIG, "cdn")]
    return int(log[-1]["Range"].split("=")[1].split("-")[0])


class Stream(HubTest):
    def compress(self, name, out, *args, **kwargs):
        return self.ok("compress", name, "-o", out, "--calibrate", "none", "--threads", 2, *args, env=self.env, **kwargs)

    def test_the_result_is_the_same_and_the_disk_holds_a_tensor_at_a_time(self):
        self.demo()
        folder = self.home / "work"
        folder.mkdir()
        whole, streamed = folder / "whole.upg", folder / "streamed.upg"
        self.compress(DEMO, whole, "--codec", "trellis2")
        peak, end = [0], threading.Event()

        def watch():
            while not end.is_set():
                used = 0
                for path in [*folder.rglob("*"), *self.cache.rglob("*")]:
                    try:
                        if path.is_file() and not path.is_symlink() and path != whole and path.suffix != ".json":
                            used += path.stat().st_blocks * 512
                    except FileNotFoundError:
                        pass
                peak[0] = max(peak[0], used)
                time.sleep(0.001)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            self.compress("ours/demo", streamed, "--codec", "trellis2", "--stream")
        finally:
            end.set()
            watcher.join()
        self.assertEqual(streamed.read_bytes(), whole.read_bytes())
        self.assertEqual({p.name for p in folder.iterdir()}, {"whole.upg", "streamed.upg"}, "nothing else is left")
        header = json.loads(self.ok("inspect", DEMO, "--json").stdout)
        largest = max(t["bytes"] for t in header["tensors"])
        shards = sum(p.stat().st_size for p in DEMO.glob("*.safetensors"))
        allowed = streamed.stat().st_size + 2 * largest + (1 << 20)  # the cache's small files, headers
        self.assertLess(allowed, shards / 1.4)
        self.assertLess(peak[0], allowed)
        self.assertGreater(peak[0], streamed.stat().st_size // 2)
        blobs = {p.name for p in (self.folder("ours/demo") / "blobs").iterdir()}
        for shard in DEMO.glob("*.safetensors"):
            self.assertNotIn(hashlib.sha256(shard.read_bytes()).hexdigest(), blobs)

    def test_a_killed_compression_goes_on_and_fetches_finished_shards_no_more(self):
        self.small()
        out = self.home / "small.upg"
        reference = self.home / "reference.upg"
        self.compress(SHARDED, reference, "--codec", "trellis4")
        first, late = (f"model-0000{i}-of-00006.safetensors" for i in (1, 4))
        args = ["compress", "ours/small", "-o", out, "--calibrate", "none", "--codec", "trellis4", "--stream"]
        self.hub.faults[late] = Fault(cut=[1 << 30] + [0] * 50)  # its header comes
        self.refuses(*args, "--retries", 1, says="(tried 2 times); the same command goes on")
        self.assertTrue(pathlib.Path(f"{out}.partial").exists())
        self.assertFalse(pathlib.Path(f"{out}.shards").exists())
        self.hub.faults.clear()
        before = len(self.hub.requests(first, "cdn"))
        self.ok(*args, env=self.env)
        self.assertEqual(len(self.hub.requests(first, "cdn")), before + 1, "its header alone")
        self.assertEqual(out.read_bytes(), reference.read_bytes())

    def test_interrupted_it_leaves_only_what_it_goes_on_from(self):
        repository = self.demo()
        out = self.home / "out.upg"
        args = ["compress", "ours/demo", "-o", out, "--codec", "int8", "--calibrate", "none", "--stream"]
        second = "model-00002-of-00002.safetensors"
        process = subprocess.Popen([UPG, *args], env={**os.environ, **self.env}, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        self.hub.pace = 0.02
        while not self.hub.requests(f"{second}?", "cdn")[1:]:  # the header's, and one more
            self.assertIsNone(process.poll())
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, err), (130, "upg: interrupted\n"))
        self.assertEqual({p.name for p in self.home.iterdir()}, {"hf", "out.upg.partial"})
        self.hub.pace = 0
        self.ok(*args, env=self.env)
        self.compress(DEMO, self.home / "whole.upg", "--codec", "int8")
        self.assertEqual(out.read_bytes(), (self.home / "whole.upg").read_bytes())
        first = len(self.hub.requests(f"/resolve/{repository.commit}/{BIG}"))
        self.refuses("compress", "ours/demo", "-o", self.home / "nowhere/out.upg", *args[4:], says="nowhere")
        self.assertFalse((self.home / "nowhere").exists())
        self.assertEqual(len(self.hub.requests(f"/resolve/{repository.commit}/{BIG}")), first)

    def test_weights_with_another_hash_leave_nothing(self):
        self.small()
        out = self.home / "small.upg"
        self.hub.faults["model-00002-of-00006.safetensors"] = Fault(corrupt=True)
        self.refuses("compress", "ours/small", "-o", out, "--codec", "int8", "--calibrate", "none", "--stream",
                     says="does not have the hash")
        self.assertFalse(list(self.home.glob("small.upg*")))

    def test_what_cannot_be_streamed_is_refused(self):
        self.small()
        out = self.home / "small.upg"
        self.refuses("compress", "ours/small", "-o", out, "--stream", says="--calibrate none")
        self.refuses("compress", SHARDED, "-o", out, "--stream", "--calibrate", "none", says="is here already")
        self.refuses("compress", "ours/small", "-o", out, "--stream", "--calibrate", "none", "--offline",
                     says="offline")
        self.assertEqual(self.hub.requests(), [])
        for shard in SHARDED.glob("*.safetensors"):
            self.hub.faults[shard.name] = Fault(ignore_range=True)
        self.refuses("compress", "ours/small", "-o", out, "--stream", "--calibrate", "none", "--codec", "int8",
                     says="does not send ranges")


@unittest.skipUnless(importlib.util.find_spec("huggingface_hub"), "huggingface_hub is not installed: ./dev test --oracles")
class SharedCache(HubTest):
    def snapshot(self, name, **options):
        program = ("import json, sys; from huggingface_hub import snapshot_download; "
                   "print(snapshot_download(sys.argv[1], **json.loads(sys.argv[2])))")
        env = {**os.environ, **self.env, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run([sys.executable, "-c", program, name, json.dumps(options)], capture_output=True, text=True,
                              timeout=120, env={key: value for key, value in env.items() if value})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def test_huggingface_hub_finds_what_upg_pulled(self):
        repository = self.demo()
        report = self.pull("ours/demo")
        asked = len(self.hub.requests())
        self.assertEqual(self.snapshot("ours/demo", local_files_only=True), report["path"])
        self.assertEqual(len(self.hub.requests()), asked)
        asked = len(self.hub.requests(role="cdn"))
        self.assertEqual(self.snapshot("ours/demo"), report["path"])
        self.assertEqual(len(self.hub.requests(role="cdn")), asked, "no weights are fetched again")
        self.is_whole(report, repository)

    def test_upg_finds_what_huggingface_hub_downloaded(self):
        self.demo()
        path = self.snapshot("ours/demo")
        asked = len(self.hub.requests())
        self.assertEqual(self.pull("ours/demo", "--offline")["path"], path)
        self.ok("run", "ours/demo", "-p", "The", "-n", 2, env=self.env)
        self.assertEqual(len(self.hub.requests()), asked)
        again = self.pull("ours/demo")
        self.assertEqual((again["path"], again["downloaded"]), (path, 0))


if __name__ == "__main__":
    main()
