"""TensorFlow's own log lines stay away, what fails is shown, and who wants to see everything does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minibert.quiet import quiet_compiler


def test_what_a_failing_import_wrote_is_shown_and_a_good_one_is_silent(tmp_path: Path) -> None:
    for body, code, shown in (("", 0, ""), ("raise RuntimeError('broken')", 1, "from C++"),
                              ("raise KeyboardInterrupt", -2, "Traceback")):  # fmt: skip
        (tmp_path / "tensorflow.py").write_text(f"import os\nos.write(2, b'from C++')\n{body}\n")
        program = (
            "from minibert.quiet import quiet_tensorflow; quiet_tensorflow(); quiet_tensorflow(); import tensorflow"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert done.stderr.startswith(shown)
        assert bool(done.stderr) == bool(shown)


def compiler(*, fails: bool = False) -> Any:
    """A TensorFlow whose compiler writes to file descriptor 2 when it compiles."""

    def function(computed: Any, *, jit_compile: bool) -> Any:
        def compiled(x: Any) -> Any:
            os.write(2, b"Compiled cluster using XLA!")
            if fails:
                raise RuntimeError("broken")
            return computed(x)

        return compiled if jit_compile else computed

    return SimpleNamespace(function=function, constant=float)


def test_the_compilers_first_words_are_said_to_nobody(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    quiet_compiler(compiler())
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"
    with pytest.raises(RuntimeError, match="broken"):
        quiet_compiler(compiler(fails=True))
    assert capfd.readouterr().err == "Compiled cluster using XLA!"


@pytest.mark.parametrize("level", [None, "0"])
def test_who_did_not_ask_for_silence_is_left_alone(monkeypatch: pytest.MonkeyPatch, level: str | None) -> None:
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    if level is not None:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    quiet_compiler(None)
