"""The parts of the page that show what a run was made from: corpus, settings, environment, digests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from minibert.checked import flat
from minibert.presets import PRESETS
from minibert.report import figures
from minibert.report.comparison import changed_settings, shown_setting
from minibert.report.markup import Content, Markup, element, escape, facts, section, table
from minibert.report.stages import STAGE_NAMES, STAGES, stage_of


def corpus(record: dict[str, Any]) -> Markup | None:
    """How many texts, of which classes, and what encoding made of them."""
    found = record.get("corpus")
    if not found:
        return None
    examples, counts, names = found.get("examples") or {}, found.get("class_counts"), found.get("class_names")
    pairs: list[tuple[Content, Content]] = [
        ("corpus", found.get("name")),
        ("data", PurePath(record["data"]).name if record.get("data") else None),
        *((f"{split} texts", _texts(n, (counts or {}).get(split), names)) for split, n in examples.items()),
        ("classes", ", ".join(f"{i} = {name}" for i, name in enumerate(names)) if names else "none: unlabelled"),
        ("vocabulary", _known(found.get("vocabulary_size"), figures.count, " ids, special ones included")),
        ("tokens", _known(found.get("tokens"), figures.count, ", padding not counted")),
        ("unknown tokens", _known(found.get("unknown_rate"), figures.percent)),
        ("padding", _known(found.get("padding_rate"), figures.percent, " of the encoded array")),
    ]
    return section("Corpus", facts(pairs))


def _known(value: Any, write: Any, note: str = "") -> str | None:
    return None if value is None else f"{write(value)}{note}"


def _texts(number: int, counts: list[int] | None, names: list[str] | None) -> str:
    if not counts or not names:
        return figures.count(number)
    return f"{figures.count(number)}: " + ", ".join(
        f"{figures.count(n)} {name}" for n, name in zip(counts, names, strict=False)
    )


def settings(record: dict[str, Any]) -> Markup:
    """Every setting, those that differ from the preset's marked."""
    values = flat(record["settings"])
    name = str(record["settings"].get("preset"))
    changed = changed_settings(record)
    note = f"No setting differs from the preset {name}."
    if changed:
        note = f"{len(changed)} of {len(values)} settings differ from the preset {name}."
    elif name not in PRESETS:
        note = f"There is no preset {name} to compare with."
    marked = [
        [
            element("code", key),
            element("mark", element("code", shown_setting(value))),
            element("code", shown_setting(usual)),
        ]
        for key, (value, usual) in sorted(changed.items())
    ]
    rows = [[element("code", key), element("code", shown_setting(value))] for key, value in values.items()]
    return section("Settings", element("p", note), table(("setting", "this run", "preset"), marked) if marked else None,
                   _folded("Every setting", table(("setting", "value"), rows)))  # fmt: skip


def _folded(title: str, *content: Content) -> Markup:
    return element("details", element("summary", title), *content)


def environment(record: dict[str, Any]) -> Markup | None:
    """The machine and the versions; of the variables only those that were set."""
    found = record.get("environment")
    if not found:
        return None
    cpu, system, threads = found.get("cpu") or {}, found.get("platform") or {}, found.get("threads")
    packages = {name: version for name, version in (found.get("packages") or {}).items() if version}
    variables = {name: value for name, value in (found.get("variables") or {}).items() if value is not None}
    cuda = found.get("cuda") or {}
    devices = ", ".join(f"{d.get('type')} {d.get('name')}" for d in found.get("devices") or [])
    pairs: list[tuple[Content, Content]] = [
        ("processor", cpu.get("model")),
        ("cores used", cpu.get("cores")),
        ("instruction sets", " ".join(cpu.get("instruction_sets") or []) or None),
        ("memory", _known(found.get("memory_bytes"), figures.size)),
        ("devices", devices or None),
        ("CUDA", ", ".join(f"{name} {version or 'not known'}" for name, version in cuda.items()) or None),
        ("threads", _threads(threads) if threads else None),
        ("system", " ".join(str(part) for part in system.values()) or None),
        ("Python", found.get("python")),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages.items()) or None),
        ("variables", element("code", " ".join(f"{k}={v}" for k, v in variables.items())) if variables else "none set"),
    ]
    return section("Environment", facts(pairs))


def _threads(threads: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', '-')}: {n or 'one for each core'}" for name, n in threads.items())


def digests(record: dict[str, Any]) -> Markup:
    """What identifies inputs and results: two equal runs have equal digests here."""
    rows = [[name, element("code", digest), figures.size(n)] for name, digest, n in _digests(record)]
    text = "SHA-256. The same settings, corpus and environment give the same weights, and so the same digests."
    return section("Digests", element("p", text), _folded("Every digest", table(("of", "digest", "size"), rows,
                                                                                 numeric=(2,))))  # fmt: skip


def _digests(record: dict[str, Any]) -> Iterator[tuple[str, str, int | None]]:
    found = record.get("corpus") or {}
    for name, digest in (
        ("settings", record.get("settings_digest")),
        ("corpus", found.get("digest")),
        ("vocabulary", found.get("vocabulary_sha256")),
        ("token ids", found.get("ids_sha256")),
    ):
        if digest:
            yield name, digest, None
    for name in STAGES:
        for part in ("weights", "optimizer"):
            digest = stage_of(record, name).get(f"{part}_sha256")
            if digest:
                yield f"{STAGE_NAMES[name]}: {part}", digest, None
    for name, artifact in (record.get("artifacts") or {}).items():
        yield name, artifact.get("sha256") or figures.NOTHING, artifact.get("bytes")


def foot(record: dict[str, Any]) -> Markup:
    """Which minibert wrote this, and from when the run is."""
    started = escape(record.get("started") or "")
    return element("footer", f"minibert {record.get('minibert_version')}; run started ", started)
