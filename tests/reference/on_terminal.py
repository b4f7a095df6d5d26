#!/usr/bin/env python3
"""Runs a command on a terminal, and types each line of standard input when the terminal shows a prompt.

    on_terminal.py PROMPT COMMAND [ARGUMENT..]

The line ^D is that key. A line that begins with ^C is typed without it, and ended by that key once it runs.
Prints all that the terminal showed; exits as the command does. PROMPT is what a prompt ends with.
"""
import os
import pty
import re
import select
import sys
import time

DEADLINE_SECONDS = 120
# what moves the cursor or turns a mode on
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    def __init__(self, command):
        self.shown = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(command[0], command)

    def look(self, seconds):
        """Takes what comes within this time; false at the end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            came = os.read(self.fd, 65536)
        except OSError:
            came = b""
        self.shown += came
        return bool(came)

    def is_coming(self):
        return bool(select.select([self.fd], [], [], 0.1)[0])

    def wait_for(self, prompt, behind, interrupt=False):
        """Waits for a prompt behind this place."""
        end = time.monotonic() + DEADLINE_SECONDS
        # a line being typed is drawn anew behind its prompt: what stays for a moment is a prompt
        while self.is_coming() or not CONTROL.sub(b"", self.shown[behind:]).endswith(prompt):
            if time.monotonic() > end or not self.look(0.3):
                sys.exit(f"no prompt: {self.shown.decode()}")
            if interrupt and not self.is_coming():
                os.write(self.fd, b"\x03")


def main():
    prompt = sys.argv[1].encode()
    lines = sys.stdin.buffer.read().splitlines()
    terminal = Terminal(sys.argv[2:])
    terminal.wait_for(prompt, 0)
    for line in lines:
        behind = len(terminal.shown)
        interrupt = line.startswith(b"^C")
        os.write(terminal.fd, b"\x04" if line == b"^D" else line.removeprefix(b"^C") + b"\r")
        if line in (b"^D", b"\\q"):
            break
        terminal.look(1)
        terminal.wait_for(prompt, behind, interrupt)
    while terminal.look(DEADLINE_SECONDS):
        pass
    sys.stdout.buffer.write(CONTROL.sub(b"", terminal.shown))
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main()
