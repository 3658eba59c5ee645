"""What is to be known of the weights, as a page beside them, and the curves as a picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from pretraining.train import NAME

_COLOURS = {"cxr": "tab:blue", "ImageNet": "tab:orange", "from nothing": "tab:gray"}

_TEXT = """\
# The weights "{weights}"

Weights of skcxr's own network "{backbone}" ({arguments}), trained by the skcxr developers, without
its head: `{weights}.safetensors`, {bytes:,} bytes, layers in float16. They were trained with
{trained_with} and the mean and maximum of the last maps before the head; that pooling was changed
afterwards, as it holds no weights.
sha256 {sha256}

**For research only.** Not a medical device. They are a beginning for other models, and give no
diagnosis by themselves: they have no head.

## Data

- Kermany, Zhang, Goldbaum: "Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for
  Classification", Mendeley Data, 2018; Kermany et al., "Identifying Medical Diagnoses and Treatable
  Diseases by Image-Based Deep Learning", Cell 172, 2018. Licence: CC BY 4.0. The films were taken
  from JPEG copies of 224 x 224 pixels and scaled to {size} x {size}; the weights are made from
  them, the films are not part of the package.
- {films:,} films of {patients:,} children of one to five years of one hospital (Guangzhou Women and
  Children's Medical Center), a part of its training split: {of_label}. `person<N>` of
  bacteria and of a virus is taken for one patient; the names may name one child twice.
- sha256 over the lines "sha256 of the file, two spaces, name", sorted by name: {files_sha256}
- `{weights}.hashes.npy` has a perceptual hash (128 bits) of each of these films, so that skcxr can
  warn where one of them is fitted or audited.
- No other data, and no other network's weights.

## Recipe

`python -m pretraining train`, the code of which is part of the project: supervised, three classes
(normal, bacteria, virus), from random numbers, {epochs} epochs, seed {seed}, and changes of pose,
exposure, sharpness, local contrast, illumination, frame and markers
(`pretraining/augmentation.py`), so that the features read the hospital less.

```json
{recipe}
```

Versions: {versions}.

On a CPU the same versions on the same kind of processor give the same file. bfloat16 is computed
differently by other kinds.

## Results

Balanced accuracy of a logistic regression (StandardScaler, C = 1) on the frozen embedding: "cxr" of
these weights, "ImageNet" of EfficientNet-Lite0 at 224 pixels. "From nothing" is `CXRClassifier` on
the same films, without weights. `n` films of each class to learn from, all films of other patients
(of adults, whose patients are not known, all other films) to test on. Mean over {draws} random
draws ({draws_scratch} from nothing), and in brackets the middle 95% of the draws. Development
figures, on public films, that say nothing about patients.

- four classes: {n_four} films of {p_four} patients (healthy, bacterial and viral pneumonia of
  children: Kermany et al. 2018; Covid-19 of adults: the COVID-19 image data collection, Cohen et
  al. 2020; a number with bacteria and with a virus are two patients here). **These were measured
  on weights that were trained in the same way without the {n_hidden} films of these patients**;
  the shipped ones have seen the patients. Adults and children differ in more than the disease.
- adults, 256 x 256 pixels (Chowdhury et al. 2020, Rahman et al. 2020), measured on the same:
  {n_adults} films. Normal and Covid-19 films come from other collections than tuberculosis, so the
  tuberculosis figures are to a part those of the collection.

{table}

All {n_four} films of the four classes, five folds by patient: accuracy {frozen} of a
logistic regression on the frozen network, {tuned} of
`CXRClassifier(weights="cxr")`, one fit of which took {seconds:.0f} s on two cores.
In brackets the lowest and highest fold.

Embeddings a second on one core, images decoded: {rates}.

## What they must not be used for

- **No score on films of Kermany et al. 2018, or of collections made of them**, from models that
  start here: PneumoniaMNIST, the "COVID-19 Radiography Database" (its viral pneumonia), and the
  many "COVID-19 / pneumonia / normal" sets hold the same children. The guard finds copies of
  other sizes, compressions and exposures, and mirrored ones; not crops by some percent, not
  thumbnails, not negatives, and not other films of the same patients.
- Diagnosis, triage, or any other decision about a patient.
- Questions on which sharpness or exposure itself bears: the training made the network blind to a
  part of it.
- Lateral films, computed tomography, anything that is no frontal chest radiograph.
- Adults are not in the training: compare with ImageNet's weights in the table above.
"""


def write_card(trained: Path, measured: Path) -> None:
    """Write ``cxr.md`` beside the weights in `trained`, a table and a picture into `measured`."""
    facts = json.loads((trained / f"{NAME}.json").read_text(encoding="utf-8"))
    found = json.loads((measured / "measured.json").read_text(encoding="utf-8"))
    rows = found["results"]
    by_draw = [row for row in rows if row["n"] is not None]
    table = _table(by_draw)
    rule = ["---"] * len(table[0])
    whole = {
        row["method"]: f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        for row in rows
        if row["n"] is None
    }
    values = {
        **facts,
        "trained_with": ", ".join(f"{k}={v}" for k, v in facts["trained_with"].items()),
        "draws": max(row["draws"] for row in by_draw),
        "draws_scratch": min(row["draws"] for row in by_draw),
        "size": facts["image_size"][0],
        "arguments": ", ".join(f"{key}={value}" for key, value in facts["arguments"].items()),
        "of_label": ", ".join(f"{n:,} {name}" for name, n in facts["of_label"].items()),
        "epochs": facts["recipe"]["max_epochs"],
        "seed": facts["recipe"]["random_state"],
        "recipe": json.dumps(facts["recipe"], indent=2),
        "versions": ", ".join(f"{key} {value}" for key, value in facts["versions"].items()),
        "n_four": found["images"]["four classes"],
        "p_four": found["patients"]["four classes"],
        "n_hidden": facts["films"] - found["trained_on"],
        "n_adults": f"{found['images']['adults, three classes']:,}",
        "table": "\n".join(f"| {' | '.join(line)} |" for line in [*table[:1], rule, *table[1:]]),
        "frozen": whole["cxr, frozen"],
        "tuned": whole["cxr, fine-tuned"],
        "seconds": found["seconds_of_a_fit"],
        "rates": ", ".join(f"{key} {rate:.0f}" for key, rate in found["images_per_second"].items()),
    }
    (trained / f"{NAME}.md").write_text(_TEXT.format_map(values), encoding="utf-8")
    with (measured / "few_labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    _picture(by_draw, measured / "few_labels.png")


def _table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The results of the draws, a line for each task and n, after a heading."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = [["task", "n", *methods]]
    for task, n in dict.fromkeys((row["task"], row["n"]) for row in rows):
        cells = {row["method"]: row for row in rows if (row["task"], row["n"]) == (task, n)}
        shown = [
            f"{cells[m]['mean']:.3f} ({cells[m]['low']:.3f} to {cells[m]['high']:.3f})"
            if m in cells
            else ""
            for m in methods
        ]
        lines.append([task, str(n), *shown])
    return lines


def _picture(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    fig, axes = plt.subplots(
        1, len(tasks), figsize=(3.2 * len(tasks), 3.4), layout="constrained", squeeze=False
    )
    for ax, task in zip(axes[0], tasks, strict=True):
        for k, method in enumerate(_COLOURS):
            chosen = [row for row in rows if (row["task"], row["method"]) == (task, method)]
            if not chosen:
                continue
            mean = [row["mean"] for row in chosen]
            spread = [
                [row["mean"] - row["low"] for row in chosen],
                [row["high"] - row["mean"] for row in chosen],
            ]
            places = [row["n"] * 1.05 ** (k - 1) for row in chosen]  # side by side
            ax.errorbar(places, mean, spread, marker="o", ms=4, capsize=2, label=method,
                        color=_COLOURS[method])  # fmt: skip
        counts = sorted({row["n"] for row in rows if row["task"] == task})
        n_classes = {"four": 4, "three": 3}.get(task.replace("adults, ", "").split()[0], 2)
        ax.axhline(1 / n_classes, color="black", ls=":", lw=1, label="chance")
        title = task.replace("adults, ", "adults,\n")
        ax.set(xscale="log", title=title, xlabel="films of each class")
        ax.set_xticks(counts, [str(n) for n in counts])
        ax.minorticks_off()
    axes[0][0].set_ylabel("balanced accuracy")
    axes[0][0].legend(loc="lower right", fontsize=8)
    fig.savefig(path, dpi=110)
    plt.close(fig)
