"""Questions whose right file is known, and the score of an index on them.

`QUESTIONS` was worded before the retrieval was built and is what the retrieval was tuned on; `HELD_OUT` was worded
at the same time and looked at only once the tuning was over, so its score is the honest one. Where a later Python
moved a module (`pathlib.py` became `pathlib/__init__.py`), every place is listed.
"""

from __future__ import annotations

import msgspec

from .answer import compose
from .index import Index

DEFAULT_QUESTION = "How do I run a subprocess with a timeout?"


class Question(msgspec.Struct, frozen=True):
    """A question and the files of the standard library that answer it, any of which is right."""

    text: str
    right: tuple[str, ...]


class Score(msgspec.Struct, frozen=True):
    """How many answers cite a right file; `missed` pairs each other question with the files it cited."""

    right: int
    total: int
    missed: tuple[tuple[str, tuple[str, ...]], ...]


QUESTIONS: tuple[Question, ...] = (
    Question(DEFAULT_QUESTION, ("subprocess.py",)),
    Question("How do I turn a Python object into a JSON string?", ("json/__init__.py", "json/encoder.py")),
    Question("How can I read rows of comma-separated values as dictionaries?", ("csv.py",)),
    Question(
        "How do I get the parent folder and the suffix of a file path?",
        ("pathlib.py", "pathlib/__init__.py", "pathlib/_local.py"),
    ),
    Question("How do I add positional arguments and subcommands to a command line program?", ("argparse.py",)),
    Question("How do I get the n largest items of a list efficiently?", ("heapq.py",)),
    Question("How do I insert an item into a sorted list and keep it sorted?", ("bisect.py",)),
    Question("How do I wrap a long paragraph to a given width?", ("textwrap.py",)),
    Question("How can I list and extract the members of a ZIP archive?", ("zipfile.py", "zipfile/__init__.py")),
    Question("How do I compute the SHA-256 digest of some bytes?", ("hashlib.py",)),
    Question("How do I create a temporary directory that is deleted automatically?", ("tempfile.py",)),
    Question("How do I copy a whole directory tree?", ("shutil.py",)),
    Question("How do I start a new log file when the current one gets too large?", ("logging/handlers.py",)),
    Question("How do I compute the difference between two dates?", ("datetime.py", "_pydatetime.py")),
    Question(
        "How do I do exact arithmetic with money, without binary rounding errors?",
        ("decimal.py", "_pydecimal.py"),
    ),
    Question("How do I shuffle a list or choose several elements without repetition?", ("random.py",)),
    Question("How do I cache the results of a function so that they are not computed twice?", ("functools.py",)),
    Question("How do I write a with statement's context manager as a generator?", ("contextlib.py",)),
    Question(
        "How do I run several coroutines concurrently and gather their results?",
        ("asyncio/tasks.py", "asyncio/taskgroups.py"),
    ),
    Question("How do I send an e-mail through a mail server?", ("smtplib.py",)),
)

HELD_OUT: tuple[Question, ...] = (
    Question(
        "How do I open a database file and run an SQL query on it?",
        ("sqlite3/__init__.py", "sqlite3/dbapi2.py"),
    ),
    Question("How do I wait in one thread until another signals that something has happened?", ("threading.py",)),
    Question("How do I open a TCP connection to a host and port?", ("socket.py",)),
    Question("How do I download the contents of a URL?", ("urllib/request.py",)),
    Question("How do I quote a string safely for use on a shell command line?", ("shlex.py",)),
    Question("How do I count how often each element occurs in a list?", ("collections/__init__.py",)),
    Question("How do I compute the median and the standard deviation of some numbers?", ("statistics.py",)),
    Question("How do I make a random token that is safe to use as a password?", ("secrets.py",)),
    Question("How do I generate a random universally unique identifier?", ("uuid.py",)),
    Question("How do I read a settings file with sections in INI format?", ("configparser.py",)),
    Question("How do I show the differences between two texts line by line?", ("difflib.py",)),
    Question("How do I make an independent deep copy of nested objects?", ("copy.py",)),
    Question("How do I measure how long a small piece of code takes to run?", ("timeit.py",)),
    Question("How do I serve the files of a folder over HTTP?", ("http/server.py",)),
    Question("How do I parse an XML document into a tree of elements?", ("xml/etree/ElementTree.py",)),
    Question("How do I check whether an IP address belongs to a network?", ("ipaddress.py",)),
    Question("How do I find the source code and the parameters of a function at run time?", ("inspect.py",)),
    Question("How do I ask the user for a password without showing what is typed?", ("getpass.py",)),
    Question("How do I print the calendar of a month?", ("calendar.py",)),
    Question(
        "How do I run a function in a pool of worker threads and wait for the results?",
        ("concurrent/futures/thread.py", "concurrent/futures/_base.py", "multiprocessing/pool.py"),
    ),
)


def evaluate(index: Index, questions: tuple[Question, ...] = QUESTIONS) -> Score:
    """Ask every question, compose the extractive answer, and count the answers that cite a right file."""
    missed: list[tuple[str, tuple[str, ...]]] = []
    for question in questions:
        report = compose(question.text, index.search(question.text))
        cited = tuple(dict.fromkeys(citation.path for citation in report.citations))
        if not set(cited) & set(question.right):
            missed.append((question.text, cited))
    return Score(right=len(questions) - len(missed), total=len(questions), missed=tuple(missed))
