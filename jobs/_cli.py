"""What all jobs share: typed flags in, one line and an exit code out.

A job imports this file before anything that takes seconds to load, so that Ctrl-C ends even the loading in one line.
"""

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

_GOES_ON = "interrupted; what is finished is kept, and the same command goes on from there"


def _say(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)


def _interrupted(*_: object) -> NoReturn:
    _say(_GOES_ON)
    os._exit(1)


signal.signal(signal.SIGINT, _interrupted)
gc.disable()  # until all is loaded, none of which is garbage: it would take a sixth of the time to look for some
atexit.register(gc.freeze)  # nor is it when the program ends, where it would take most of a second

import typer  # noqa: E402
from typer.exceptions import TyperException  # noqa: E402

from medsynth import storage  # noqa: E402
from medsynth.errors import UserError  # noqa: E402

_INTERRUPTED = 130  # typer's code for Ctrl-C
_JOB_FOLDER = "/runtime_resources/working_dir_files/"


def run(command: Callable[..., Any]) -> NoReturn:
    """Run a job's function as a program.

    Exit codes: 0 done; 2 the user's mistake, told in one line; 1 anything else.

    Args:
        command: its parameters are the flags, its docstring the help.
    """
    gc.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on there is something to put in order
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(command)
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _say(str(error))
        sys.exit(2)
    except TyperException as error:
        _say(error.format_message())
        sys.exit(2)
    if code == _INTERRUPTED:
        _say(_GOES_ON)
        sys.exit(1)
    sys.exit(0)


def place(uri: str, flag: str) -> str:
    """Where a flag points, independent of the working directory.

    Raises:
        UserError: it is a relative path inside the temporary folder of a submitted job, which Ray removes.
    """
    found = storage.absolute(uri)
    if found != uri and _JOB_FOLDER in found:
        raise UserError(
            f"{flag} {uri}: lies in the temporary folder of the submitted job; name a URI or an absolute path"
        )
    return found
