"""Answers for tests/reader.rs: reads a request a line and says what the reader says, as JSON.

A request is a directory, and behind a tab an LSN to stop at, or `live`. The answer has the exit
status (1 with `newer` where a file is of a newer format), what --verify and what --json say.
"""

import contextlib
import io
import json
import sys

import tokenwal_reader


def main():
    for line in sys.stdin:
        directory, _, mode = line.rstrip("\n").partition("\t")
        flags = ["--live"] if mode == "live" else ["--at", mode] if mode else []
        status, verification = ask(directory, "--verify")
        _, accounts = ask(directory, "--json", *flags)
        answer = {
            "status": status, "verification": (verification or [None])[0], "accounts": accounts,
        }
        print(json.dumps(answer), flush=True)


def ask(*arguments):
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        status = tokenwal_reader.main(list(arguments))
    return status, [json.loads(line) for line in output.getvalue().splitlines()]


if __name__ == "__main__":
    main()
