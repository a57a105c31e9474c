"""What a person sees: names as they are, long tables short, times in units that suit them."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

JOBS = Path(__file__).resolve().parent.parent / "jobs"


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(JOBS))
    import _console

    return _console


def test_what_looks_like_markup_is_shown_as_it_stands(console: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    console.say("corpus: /data/[red]/[/x]", "yellow")
    console.table("[b]", ["[/stain]", "tiles"], [["H [&] E [/y]", 3]])
    shown = capsys.readouterr().out
    for text in ("/data/[red]/[/x]", "[b]", "[/stain]", "H [&] E [/y]"):
        assert text in shown


def test_a_long_table_shows_its_ends_and_how_much_is_left_out(
    console: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    console.table("t", ["name", "asked", "planned"], [[f"row{i}", i, i] for i in range(900)])
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 40
    assert "row14" in shown
    assert "870 more" in shown
    assert "row899" in shown


def test_ctrl_c_while_a_job_still_loads_is_one_line() -> None:
    program = "import os, signal, _cli; os.kill(os.getpid(), signal.SIGINT); raise SystemExit(9)"
    done = subprocess.run([sys.executable, "-c", program], cwd=JOBS, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: interrupted; what is finished is kept")
    assert done.stderr.count("\n") == 1


def test_a_job_does_not_look_through_all_that_it_has_loaded_when_it_ends() -> None:
    loaded = (
        "class Loaded:\n    def __del__(self): print('looked at', flush=True)\nown = Loaded(); own.own = own; del own"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # tests/quick_start is in it

    def printed(imported: str) -> str:
        program = f"import {imported}\n{loaded}"
        return subprocess.check_output([sys.executable, "-c", program], cwd=JOBS, env=env, text=True)

    assert printed("sys") == "looked at\n"
    assert printed("_cli") == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.453, "0.45 s"), (70, "70 s"), (150, "2 min"), (1e5, "28 h")])
def test_times_are_in_the_unit_that_suits_them(console: ModuleType, seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


@pytest.mark.parametrize("losses", [1, 9])
def test_a_training_s_table_fits_a_terminal_and_names_every_loss_whole(console: ModuleType, losses: int) -> None:
    import _training
    from rich.console import Console

    from medsynth.distributed.board import Progress

    names = ["loss_of_the_judge", *(f"lesion_loss_{n}" for n in range(losses - 1))]
    lines = [
        Progress(step, 6000, dict.fromkeys(names, step * 1.234567e-05), {"learning_rate": 5e-4}, {}, 13.0, 0.02)
        for step in range(100, 1300, 100)
    ]
    terminal = Console(width=80, file=io.StringIO(), record=True)
    terminal.print(_training._curve("training", lines))
    shown = terminal.export_text()
    assert all(name.replace("_", " ") in " ".join(shown.split()) for name in [*names, "learning_rate"])
    assert "…" not in shown
    assert "1,200" in shown
    assert "0.01481" in shown
    assert max(map(len, shown.splitlines())) <= 80
