#!/usr/bin/env python3
"""Talks with the bundled model, in a pipe and on a terminal. Standard library only.

  test_chat.py [TEST...]      the program is $UPG, or build/release/upg of this repository

What a turn reads and keeps is tested in src/engine/chat_test.cc; here is what a user sees.
"""
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import termios
import time

from cli import DEMO, SMALL, UPG, CliTest, main


class ChatInAPipe(CliTest):
    def chat(self, lines, *args):
        return self.ok("chat", self.demo, "--temperature", 0, "-n", 6, *args, typed=lines)

    def turns(self, lines, *args):
        return [json.loads(line) for line in self.chat(lines, "--json", *args).stdout.splitlines()]

    def test_every_line_is_a_message_and_only_answers_are_printed(self):
        done = self.chat("Hello\n\nTell me more\n")
        answers = [turn["text"] for turn in self.turns("Hello\n\nTell me more")]
        self.assertEqual(len(answers), 2)
        self.assertEqual(done.stdout, "".join(answer + "\n" for answer in answers))

    def test_the_second_turn_reads_only_what_is_new(self):
        one, two, three = self.turns("Hello\nMore\nMore\n")
        self.assertEqual(one["reused_tokens"], 0)
        self.assertEqual(two["reused_tokens"], one["prompt_tokens"] + len(one["tokens"]) - 1)
        self.assertEqual(three["reused_tokens"], two["reused_tokens"] + two["prompt_tokens"] + len(two["tokens"]) - 1)
        self.assertEqual(two["prompt_tokens"], three["prompt_tokens"])

    def test_messages_of_several_lines(self):
        same = ["one\\\n/two\n", '"""one\n/two"""\n', '"""\none\n/two\n"""\n']
        self.assertEqual(len({self.chat(lines).stdout for lines in same}), 1)
        self.assertEqual(len(self.turns(same[2])), 1)
        self.refused("chat", self.demo, typed='"""one\n', says="close it")

    def test_the_first_message_and_the_system_message_are_options(self):
        prompt = self.turns("", "-p", "Hello")
        self.assertEqual([turn["text"] for turn in prompt], [turn["text"] for turn in self.turns("Hello\n")])
        system = self.turns("", "-p", "Hello", "--system", "You are brief.")
        self.assertGreater(system[0]["prompt_tokens"], prompt[0]["prompt_tokens"])
        self.assertEqual(self.turns("/system You are brief.\nHello\n")[0]["tokens"], system[0]["tokens"])

    def test_commands_change_the_conversation(self):
        one, again, new, first = self.turns("Hello\n/params temperature=1.5 seed=3 max_tokens=9\n/regen\n/clear\nOh\n"
                                            "/params temperature=0 max_tokens=6\n/system X\n/system \"\"\nHello\n")
        self.assertNotEqual(again["tokens"], one["tokens"])
        self.assertEqual(again["prompt_tokens"], 1)
        self.assertEqual(len(new["tokens"]), 9)
        self.assertEqual(first["text"], one["text"])
        done = self.chat("Hello\n/stats\n/params\n/system\n/help\n/quit\nnever\n")
        for text in ("of 1024 tokens", "from before", "temperature=0.0", "max_tokens=6", "no system message", "/regen"):
            self.assertIn(text, done.stderr)
        self.assertEqual(done.stdout.count("\n"), 1, "what comes after /quit is not read")

    def test_a_conversation_is_saved_and_loaded(self):
        file = self.tmp / "chat.json"
        whole = self.turns(f"Hello\n/params max_tokens=4\n/save {file}\nMore\n", "--system", "Brief.")
        saved = json.loads(file.read_text())
        self.assertEqual([m["role"] for m in saved["messages"]], ["system", "user", "assistant"])
        self.assertEqual(saved["messages"][2]["content"], whole[0]["text"])
        self.assertEqual(saved["params"]["max_tokens"], 4)
        loaded = self.turns(f"/load {file}\nMore\n/save {file}\n")
        self.assertEqual(len(loaded[0]["tokens"]), 4)
        self.assertEqual(len(json.loads(file.read_text())["messages"]), 5)
        self.assertEqual([p.name for p in self.tmp.iterdir() if "chat.json" in p.name], ["chat.json"])
        saved["params"]["top_p"] = 3
        file.write_text(json.dumps(saved))
        self.refused("chat", self.demo, typed=f"/load {file}\n", says="chat.json: params: top_p is 3")

    def test_mistakes_end_a_script(self):
        for line, says in (("/nonsense", "no command /nonsense"), ("/params heat=3", 'no parameter "heat"'),
                           ("/params top_p=2", "top_p is 2, must be above 0"), ("/params top_k=-1", "whole number from 0"),
                           ("/params seed", "NAME=VALUE"), ("/params temperature=hot", 'temperature is "hot"'),
                           ("/save", "name of a file"), ("/load /absent.json", "/absent.json"),
                           (f"/save {self.tmp}/absent/x.json", "absent"), ("/regen", "no answer yet"),
                           ("x " * 1100, "the context holds 1024")):
            self.refused("chat", self.demo, typed=line + "\nHello\n", says=says)
        self.refused("chat", self.demo, "--top-p", 2, says="top_p is 2")
        self.refused("chat", self.demo, "--template", "absent.jinja", says="chatml, phi-4")
        self.refused("chat", SMALL, says="no chat template")

    def test_templates_are_built_in_or_files(self):
        file = self.tmp / "own.jinja"
        file.write_text("{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
                        "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}")
        models_own = self.turns("Hello\n")[0]["tokens"]
        self.assertEqual(self.turns("Hello\n", "--template", file)[0]["tokens"], models_own)
        self.assertEqual(self.turns("Hello\n", "--template", "phi-4")[0]["tokens"], models_own)
        self.assertNotEqual(self.turns("Hello\n", "--template", "plain")[0]["tokens"], models_own)


class ChatOnATerminal(CliTest):
    def setUp(self):
        self.state = self.tmp / "state"
        shutil.rmtree(self.state, ignore_errors=True)

    def open(self, *args):
        self.terminal, child = pty.openpty()
        self.addCleanup(os.close, self.terminal)

        def own_the_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        process = subprocess.Popen([UPG, "chat", DEMO, *map(str, args)], stdin=child, stdout=child, stderr=child,
                                   preexec_fn=own_the_terminal,
                                   env={**os.environ, "XDG_STATE_HOME": str(self.state), "TERM": "xterm"})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        os.close(child)
        self.seen = b""
        self.until("> ")
        return process

    def until(self, text):
        """Waits for `text`, and takes the output up to its end."""
        end = time.time() + 30
        while text.encode() not in self.seen:
            if not select.select([self.terminal], [], [], max(0, end - time.time()))[0]:
                self.fail(f"no {text!r} in {self.seen!r}")
            self.seen += os.read(self.terminal, 4096)
        before, self.seen = self.seen.split(text.encode(), 1)
        return before.decode(errors="replace")

    def type(self, keys, until):
        os.write(self.terminal, keys.encode())
        return self.until(until)

    def test_ctrl_c_stops_the_answer_and_not_the_program(self):
        process = self.open("--ignore-eos", "--temperature", 0)
        self.type("Hello there\n", "the first")
        self.type("\x03", "[stopped]")
        self.until("> ")
        self.assertIn("2 messages", self.type("/stats\n", "cancelled"))
        self.until("> ")
        self.type("\x03", "^C\r\n")
        self.type("\x03", "Ctrl-D ends")
        self.until("> ")
        self.type("/params max_tokens=2\n", "> ")
        self.type("More\n", "[stopped after 2 tokens")
        self.until("> ")
        self.type("\x04", "\n")
        self.assertEqual(process.wait(timeout=10), 0)

    def test_history_and_completion(self):
        process = self.open("--temperature", 0, "-n", 2)
        self.type("Once upon\n", "> ")
        self.type('"""two\n', ". ")
        self.type('lines"""\n', "[stopped after")
        self.until("> ")
        self.type("/qu\t\n", "\n")
        self.assertEqual(process.wait(timeout=10), 0)
        history = self.state / "upg/history"
        self.assertEqual(history.read_text(), 'Once upon\n"""two\\nlines"""\n/quit \n')
        self.assertEqual(history.stat().st_mode & 0o777, 0o600)
        process = self.open()
        self.type("\x10\x10\x10", "Once upon")
        self.type("\x15/nonsense\n", "no command /nonsense")
        self.until("> ")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=10), 130)


if __name__ == "__main__":
    main()
