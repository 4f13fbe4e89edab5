"""A record is read only if it is whole and as it was written; its code digests follow the code, not its prose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minibert import record as record_module
from minibert.errors import ArtifactError
from minibert.record import NAME, code_digests, earlier_record, read_record, record_settings, write_record
from minibert.settings import RunSettings
from tests.records import made_up_record

FIELDS = {
    "format": int, "minibert_version": str, "status": str, "started": str, "settings": dict, "settings_digest": str,
    "corpus": dict, "environment": dict, "code": dict, "stages": dict, "artifacts": dict,
}  # fmt: skip
"""What the README promises, by type."""


def rewrite(folder: Path, change: Any) -> None:
    """Edits the file as a person would: the digests stay."""
    content = json.loads((folder / NAME).read_bytes())
    content = change(content) or content
    (folder / NAME).write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    write_record(tmp_path, made_up_record(epochs=1))
    return tmp_path


def test_what_is_written_is_read(tmp_path):
    record = made_up_record("imdb")
    record["corpus"]["class_names"] = ["négatif\u2028", '"']
    record["stages"]["pretrain"]["epochs"][0]["loss"] = 0.1 + 0.2
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert record_settings(record, tmp_path / NAME).digest() == record["settings_digest"]
    write_record(tmp_path, read_record(tmp_path))
    assert read_record(tmp_path) == record


def test_the_digest_of_an_old_record_is_not_carried_on(folder):
    """A record that is read, changed and written again must be valid."""
    record = json.loads((folder / NAME).read_bytes())
    record["status"] = "running"
    write_record(folder, record)
    assert read_record(folder)["status"] == "running"


def test_every_field_that_is_promised_is_there(folder):
    record = read_record(folder)
    assert {name: type(record[name]) for name in FIELDS} == FIELDS


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(folder, field):
    rewrite(folder, lambda content: {name: value for name, value in content.items() if name != field})
    with pytest.raises(ArtifactError) as caught:
        read_record(folder)
    assert str(caught.value) == f"{folder / NAME}: field {field!r} is required, but it is missing"


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_another_type_is_named(folder, field):
    wrong, name = (["a list"], "list") if FIELDS[field] is not list else ({}, "dict")
    rewrite(folder, lambda content: content.__setitem__(field, wrong))
    with pytest.raises(ArtifactError) as caught:
        read_record(folder)
    assert str(caught.value) == f"{folder / NAME}: field {field!r} has the wrong type, {name}"


def edits(*path: str | int, value: Any) -> Any:
    def change(content: Any) -> None:
        for part in path[:-1]:
            content = content[part]
        assert content[path[-1]] != value
        content[path[-1]] = value

    return change


def lost(name: str) -> Any:
    return lambda content: content.pop(name) and None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (edits("status", value="running"), "status"),
        (edits("started", value="2020-01-01T00:00:00+00:00"), "started"),
        (edits("minibert_version", value="9.9.9"), "minibert_version"),
        (edits("corpus", "digest", value="0" * 64), "corpus"),
        (edits("environment", "python", value="2.7.18"), "environment"),
        (edits("code", value={"text.py": "0" * 64}), "code"),
        (edits("stages", "end_to_end", "accuracy", value=0.99), "stages"),
        (edits("stages", "pretrain", "epochs", 0, "loss", value=1.0), "stages"),
        (edits("artifacts", "masked_lm.keras", "sha256", value="0" * 64), "artifacts"),
        (edits("record_digest", value="0" * 64), "record_digest"),
        (lost("record_digest"), "record_digest"),
        (lost("field_digests"), "record_digest"),
        (edits("field_digests", "code", value="0" * 64), "code"),
        (edits("field_digests", value=7), "record_digest"),
        (lambda content: content.__setitem__("a_new_field", 1), "a_new_field"),
    ],
)
def test_an_edited_record_is_refused_and_the_field_is_named(folder, change, field):
    rewrite(folder, change)
    with pytest.raises(ArtifactError) as caught:
        read_record(folder)
    assert str(caught.value) == (f"{folder / NAME}: field {field!r} does not fit its digest: the record was edited")


def test_an_optional_field_that_was_taken_out_is_named(tmp_path):
    write_record(tmp_path, made_up_record(epochs=1) | {"data": "reviews.csv"})
    rewrite(tmp_path, lost("data"))
    with pytest.raises(ArtifactError, match="field 'data' does not fit its digest"):
        read_record(tmp_path)


def test_a_record_without_the_digests_of_its_fields_is_read(folder):
    """Records of before there were any."""
    content = json.loads((folder / NAME).read_bytes())
    del content["field_digests"], content["record_digest"]
    content["record_digest"] = record_module._digest(content)
    (folder / NAME).write_text(json.dumps(content), encoding="utf-8")
    assert read_record(folder) == made_up_record(epochs=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edits("format", value=1), "field 'format': 2 is required, but 1 of another version of minibert came"),
        (edits("settings", "seed", value=1), "field 'settings' was edited: it does not fit 'settings_digest'"),
        (edits("settings_digest", value="0" * 64), "field 'settings' was edited: it does not fit 'settings_digest'"),
        (edits("settings", "seed", value="a"), "field 'settings': seed: an integer is required"),
        (edits("settings", "seed", value=-1), "field 'settings': seed: an integer from 0 to 2**63 - 1 is required"),
        (edits("settings", "masking", value=[]), "field 'settings': masking: MaskingSettings or a table"),
        (edits("settings", "model", "heads", value=7), "field 'settings': model.heads: a divisor of"),
        (lambda c: c["settings"].__setitem__("sede", 1), "field 'settings': settings: 'sede' is not a setting"),
        (lambda c: c["settings"]["text"].__setitem__("size", 1), "'size' is not a setting"),
    ],
)
def test_settings_that_are_none_are_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ArtifactError) as caught:
        read_record(folder)
    assert str(caught.value).startswith(f"{folder / NAME}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", [0, 1, 100, -2])
def test_a_cut_record_is_refused(folder, end):
    (folder / NAME).write_bytes((folder / NAME).read_bytes()[:end])
    with pytest.raises(ArtifactError) as caught:
        read_record(folder)
    assert str(caught.value).startswith(f"{folder / NAME}: JSON is required, but it cannot be read: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe{}", "JSON is required, but it cannot be read: "),
        (b'{"format": NaN}', "JSON is required, but it cannot be read: NaN is not JSON"),
        (b'{"status": "\\ud800"}', "JSON is required, but it cannot be read: 'utf-8' codec can't encode character"),
        (b"null", "an object is required, but NoneType came"),
        (b"[1]", "an object is required, but list came"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, content, message):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_record(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / NAME}: {message}")


def test_what_a_kill_left_of_the_first_record_is_no_run_to_be_kept(tmp_path):
    (tmp_path / ".run.0123abcd.json").write_text("{")
    assert earlier_record(tmp_path, resume=False) is None
    with pytest.raises(ArtifactError, match=r"a run directory with a run\.json is required"):
        earlier_record(tmp_path, resume=True)
    for name in (".run.0123abcd.txt", ".run.0123.json", "run.0123abcd.json", ".walk.0123abcd.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ArtifactError, match="a new or empty folder is required"):
            earlier_record(tmp_path, resume=False)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("make_path", [lambda folder: folder, lambda folder: folder / "missing"])
def test_a_missing_record_is_named(tmp_path, make_path):
    folder = make_path(tmp_path)
    with pytest.raises(ArtifactError) as caught:
        read_record(folder)
    assert str(caught.value) == f"{folder / NAME}: a run directory with a run.json is required, but there is none"


def test_a_setting_that_a_record_is_too_old_for_has_its_default(tmp_path):
    record = made_up_record(epochs=1)
    del record["settings"]["finetune"]["validation_rate"]
    record["settings_digest"] = record_module._digest(record["settings"])
    write_record(tmp_path, record)
    assert read_record(tmp_path) == made_up_record(epochs=1)


def test_equal_settings_of_another_writing_are_accepted(folder):
    """The digest is of the settings, not of the file's spaces or order."""
    content = json.loads((folder / NAME).read_bytes())
    (folder / NAME).write_text(json.dumps(content, sort_keys=True, indent=None), encoding="utf-8")
    assert isinstance(record_settings(read_record(folder), folder / NAME), RunSettings)


# Code digests


def test_code_digests_name_every_computing_module():
    names = set(code_digests())
    assert {"streams.py", "masking.py", "text.py", "batches.py", "settings.py", "pipeline.py", "executing.py"} <= names
    assert {"preparation.py", "fingerprints.py", "stages.py", "training_settings.py", "corpora/selection.py"} <= names
    assert {"model/attention.py", "model/dropout.py", "training/step.py", "training/loop.py"} <= names
    assert not {"cli.py", "report/page.py", "progress.py"} & names
    assert all(len(digest) == 64 for digest in code_digests().values())


SOURCE = '"""A module."""\n\nX = 1\n\n\ndef f(a):\n    """A function."""\n    return a + X  # why\n'


@pytest.mark.parametrize(
    ("edited", "same"),
    [
        (SOURCE.replace("A module.", "Other words."), True),
        (SOURCE.replace('    """A function."""\n', ""), True),
        (SOURCE.replace('\n    """A function."""\n    return', ' "A function."; return'), True),
        (SOURCE.replace('\n    """A function."""\n    return a +', ' "A function."; return a -'), False),
        (SOURCE.replace("  # why", "  # another reason"), True),
        (SOURCE.replace("\n\n\n", "\n"), True),
        (SOURCE.replace("X = 1\n", 'X = 1\n"""What X is."""\n'), True),
        (SOURCE.replace("X = 1", "X = 2"), False),
        (SOURCE.replace("a + X", "X + a"), False),
        (SOURCE.replace("X = 1", "X = 1.0"), False),
        (SOURCE.replace("def f(a)", "def f(a, b=1)"), False),
        (SOURCE.replace("return a", 'print("text")\n    return a'), False),
    ],
)
def test_code_digests_follow_code_but_not_comments_and_docstrings(tmp_path, edited, same):
    digests = []
    for name, source in (("one.py", SOURCE), ("two.py", edited)):
        (tmp_path / name).write_text(source, encoding="utf-8")
        digests.append(record_module._code_digest(tmp_path / name))
    assert (digests[0] == digests[1]) is same


def test_code_digests_follow_the_blank_lines_of_a_text_that_is_used(tmp_path):
    (tmp_path / "one.py").write_text('X = """a\nb"""\n', encoding="utf-8")
    (tmp_path / "two.py").write_text('X = """a\n\nb"""\n', encoding="utf-8")
    assert record_module._code_digest(tmp_path / "one.py") != record_module._code_digest(tmp_path / "two.py")


def test_code_digests_are_the_same_on_every_python(tmp_path):
    (tmp_path / "one.py").write_text("def f(a, *, width, b: int = 3) -> str:\n    return f'{a:{width}} {b!r}' 'x'\n")
    assert record_module._code_digest(tmp_path / "one.py") == (
        "1535274c28212c2cf3e1612880f9f2336d369bb8c03b8882cbfd930b1873166b"
    )
