"""The report of a benchmark as Markdown."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

TOKENIZERS = {
    "mel_rvq_from_mel": "Mel-RVQ from log-mel; other: official class",
    "mel_rvq_from_wavs": "Mel-RVQ from waveforms; other: official class",
    "random_projection": "random projection from log-mel; other: SpeechBrain's",
    "encodec_from_wavs": "Mel-RVQ from waveforms; other: EnCodec of transformers",
}
NOTHING = "-"

EXPLANATION = """\
Times are medians of repeats taken in turn. A ratio of times is theirs over ours, larger
is better; one of memory is ours over theirs, smaller is better. Memory is the peak
beside the loaded model. Differences are relative, from the official result in fp32: of
the last hidden state for inference, the larger of those of loss and gradient of the
first layer for training, the share of differing codes for tokenizers. A large matrix
product reached {rates} TFLOP/s."""


def markdown(report: dict[str, Any]) -> str:
    """Writes the tables of a report."""
    models = [row for row in report["rows"] if row["task"]["kind"] not in TOKENIZERS]
    tokenizers = [row for row in report["rows"] if row["task"]["kind"] in TOKENIZERS]
    parts = [machine_line(report["machine"])]
    if models:
        parts.append(model_table(models, report["rates"]))
    if tokenizers:
        parts.append(tokenizer_table(tokenizers))
    rates = [f"{rate / 1e12:.3g} in {name}" for name, rate in report["rates"].items()]
    parts.append(EXPLANATION.format(rates=" and ".join(rates)))
    return "\n\n".join(parts) + "\n"


def machine_line(machine: dict[str, Any]) -> str:
    """Says where and when it was measured."""
    gpu = f"{machine['gpu']}, " if machine.get("gpu") else ""
    return (
        f"{gpu}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} "
        f"threads, torch {machine['torch']}, {machine['date']}; model: "
        f"{machine['size']}."
    )


def model_table(rows: list[Row], rates: dict[str, float]) -> str:
    """Writes the table of inference and training."""
    compiled = any("compiled" in row["sides"] for row in rows)
    own = ["ours", "compiled"] if compiled else ["ours"]
    titles = ["what", "precision", "clip", "official"]
    for name in own:
        titles += [name, "ratio", "to official fp32", "of matrix rate"]
    titles += ["memory official"]
    for name in own:
        titles += [f"memory {name}", "ratio"]
    titles += [f"difference {name}" for name in ("official", *own)]
    lines = []
    for row in rows:
        task, sides = row["task"], row["sides"]
        official = sides.get("official", {})
        fp32 = _find(rows, {**task, "precision": "fp32"})["sides"].get("official", {})
        cells = [
            task["kind"],
            task["precision"],
            f"{task['batch']} x {task['seconds']:g} s",
            _time(official),
        ]
        for name in own:
            side = sides.get(name, {})
            cells += [_time(side), _ratio(official, side), _ratio(fp32, side)]
            cells.append(_share(row, side, rates))
        cells.append(_bytes(official))
        for name in own:
            side = sides.get(name, {})
            cells += [_bytes(side), _ratio(side, official, "bytes")]
        cells += [_difference(row, name) for name in ("official", *own)]
        lines.append(cells)
    return _table(titles, lines)


def tokenizer_table(rows: list[Row]) -> str:
    """Writes the table of tokenizers."""
    titles = ["ours, and the other", "clip", "other, tokens/s", "ours, tokens/s"]
    titles += ["ratio of tokens/s", "ratio of times", "codes that differ"]
    lines = []
    for row in rows:
        task, sides = row["task"], row["sides"]
        other = next((side for name, side in sides.items() if name != "ours"), {})
        ours = sides["ours"]
        rates = [_tokens_per_second(side) for side in (other, ours)]
        lines.append(
            [
                TOKENIZERS[task["kind"]],
                f"{task['batch']} x {task['seconds']:g} s",
                *(
                    f"{rate:,.0f}" if rate else _time(side)
                    for rate, side in zip(rates, (other, ours), strict=True)
                ),
                f"{rates[1] / rates[0]:.1f}" if all(rates) else NOTHING,
                _ratio(other, ours),
                _difference(row, "ours"),
            ]
        )
    return _table(titles, lines)


def _table(titles: list[str], lines: list[list[str]]) -> str:
    rows = [titles, ["---"] * len(titles), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _find(rows: list[Row], task: dict[str, Any]) -> Row:
    return next((row for row in rows if row["task"] == task), {"sides": {}})


def _time(side: dict[str, Any]) -> str:
    if "fails" in side:
        return f"fails: {side['fails']}".replace("|", "/")
    seconds = side.get("seconds")
    if seconds is None:
        return NOTHING
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _ratio(above: dict, below: dict, key: str = "seconds") -> str:
    if not above.get(key) or not below.get(key):
        return NOTHING
    return f"{above[key] / below[key]:.2f}"


def _bytes(side: dict[str, Any]) -> str:
    if "memory_fails" in side:
        return f"fails: {side['memory_fails']}".replace("|", "/")
    return f"{side['bytes'] / 2**20:,.0f} MiB" if "bytes" in side else NOTHING


def _difference(row: Row, name: str) -> str:
    values = row["differences"].get(name, {}).values()
    return f"{max(values):.1g}" if values else NOTHING


def _tokens_per_second(side: dict[str, Any]) -> float | None:
    return side["tokens"] / side["seconds"] if "seconds" in side else None


def _share(row: Row, side: dict[str, Any], rates: dict[str, float]) -> str:
    if "seconds" not in side:
        return NOTHING
    rate = row["flops"] / side["seconds"]
    return f"{rate / rates[row['task']['precision']]:.0%}"
