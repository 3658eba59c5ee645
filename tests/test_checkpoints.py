"""A fit that goes on from where it was killed, and all that may lie in its folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from filelock import FileLock
from skorch.callbacks import Callback, EpochScoring

import skcxr._checkpoints
from skcxr import CheckpointError, CXRClassifier, InputError, SkcxrWarning, save_model
from skcxr._checkpoints import KeepState


class KilledError(Exception):
    """Stands for what ends a process."""


def weights(clf):
    return {key: tensor.clone() for key, tensor in clf.module_.state_dict().items()}


def assert_same(clf, other):
    """Weights to the bit, and the history apart from its durations."""
    mine, others = weights(clf), weights(other)
    assert mine.keys() == others.keys()
    for key, tensor in mine.items():
        assert torch.equal(tensor, others[key]), key
    columns = [key for key in ("train_loss", "valid_loss") if key in clf.history_[-1]]
    for column in columns:
        assert clf.history_[:, column] == other.history_[:, column]
    assert clf.n_iter_ == other.n_iter_


def states(folder):
    """Names of the states in a folder, the newest last."""
    return sorted(name for name in os.listdir(folder) if name.startswith("epoch-"))


def fit_killed_in_epoch(epoch, monkeypatch, images, folder, **params):
    """Fit until that epoch is over but not yet kept."""
    keep = KeepState.on_epoch_end

    def killed(self, net, **kwargs):
        if len(net.history) == epoch:
            raise KilledError
        keep(self, net, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(KeepState, "on_epoch_end", killed)
        with pytest.raises(KilledError):
            fit(images, checkpoint=folder, **params)


def fit(images, **params):
    X, y = images
    return CXRClassifier(**{"max_epochs": 5, "random_state": 0, **params}).fit(
        X, y, groups=np.arange(len(y))
    )


class Counter(Callback):
    """Counts epochs in an attribute of the learnt kind."""

    def initialize(self):
        self.seen_ = 0
        return self

    def on_epoch_end(self, net, **kwargs):
        self.seen_ += 1
        net.history.record("seen", self.seen_)


class Holder(Callback):
    """Holds what cannot be kept without code."""

    def initialize(self):
        self.handle_ = object()
        return self


KINDS = {
    "smallnet": {},
    "cxrnet": {"backbone": "cxrnet", "image_size": 32},
    "cosine": {"lr_schedule": "cosine", "optimizer": "sgd"},
    "constant": {"lr_schedule": None, "optimizer": torch.optim.RMSprop},
    "average": {"ema": 0.9},
    "early stopping": {"early_stopping": True, "validation_fraction": 0.3},
    "mixing": {"mixup": 0.4, "cutmix": 1.0, "batch_size": 5},
    "held and let go": {
        "backbone": "cxrnet", "image_size": 32, "freeze": 1, "unfreeze_at": 2,
        "backbone_lr_mult": 0.5,
    },
    "held": {"backbone": "cxrnet", "image_size": 32, "freeze": "backbone"},
    "python's and numpy's generators": {
        "augmentation": lambda image: image * random.random() + np.random.rand()
    },
    "a callback": {"net_params": {"callbacks": [
        ("counter", Counter()), EpochScoring(lambda net, X, y: 1.0, name="one"),
    ]}},
}  # fmt: skip


@pytest.mark.parametrize("params", KINDS.values(), ids=KINDS)
def test_a_fit_that_goes_on_ends_as_one_undisturbed(params, images, tmp_path, monkeypatch):
    undisturbed = fit(images, **params)
    for epoch in (1, 3, 5):
        folder = tmp_path / str(epoch)
        fit_killed_in_epoch(epoch, monkeypatch, images, folder, **params)
        resumed = fit(images, checkpoint=folder, **params)
        assert_same(resumed, undisturbed)
        if "net_params" in params:
            assert resumed.history_[:, "seen"] == undisturbed.history_[:, "seen"]


def test_readers_of_images_do_not_matter(files, images, tmp_path, monkeypatch):
    images = files, images[1]
    undisturbed = fit(images, image_size=20)
    fit_killed_in_epoch(2, monkeypatch, images, tmp_path, image_size=20, num_workers=2)
    resumed = fit(images, checkpoint=tmp_path, image_size=20, ram_limit=0, verbose=1)
    assert_same(resumed, undisturbed)


def test_a_folder_changes_nothing_of_a_fit_and_holds_two_states(images, tmp_path):
    assert_same(fit(images, checkpoint=tmp_path / "new" / "fit"), fit(images))
    names = os.listdir(tmp_path / "new" / "fit")
    assert [name[:11] for name in sorted(names)[:2]] == ["epoch-00004", "epoch-00005"]
    assert sorted(names)[2:] == ["lock"]


def test_a_fit_that_has_ended_is_taken_up_as_it_was(images, tmp_path, monkeypatch):
    first = fit(images, checkpoint=tmp_path, early_stopping=True)
    monkeypatch.setattr("skcxr.training.TrainingNet.train_step", lambda *args: 1 / 0)
    assert_same(fit(images, checkpoint=tmp_path, early_stopping=True), first)


def test_early_stopping_stops_in_the_same_epoch(images, tmp_path, monkeypatch):
    params = {"early_stopping": True, "n_iter_no_change": 2, "max_epochs": 60, "lr": 0.1}
    undisturbed = fit(images, **params)
    assert 4 < undisturbed.n_iter_ < 60
    fit_killed_in_epoch(undisturbed.n_iter_ - 1, monkeypatch, images, tmp_path, **params)
    assert_same(fit(images, checkpoint=tmp_path, **params), undisturbed)
    assert_same(fit(images, checkpoint=tmp_path, **params), undisturbed)


def test_without_a_random_state_the_seed_of_the_first_part_counts(images, tmp_path, monkeypatch):
    fit_killed_in_epoch(3, monkeypatch, images, tmp_path, random_state=None)
    seed = json.loads(header(tmp_path / states(tmp_path)[-1]))["seed"]
    resumed = fit(images, checkpoint=tmp_path, random_state=None)
    monkeypatch.setattr("skcxr.classifier.draw_seed", lambda _: seed)
    assert_same(resumed, fit(images, random_state=None))


def header(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]["skcxr"]


def test_nothing_global_is_moved_by_going_on(images, tmp_path, monkeypatch):
    fit_killed_in_epoch(2, monkeypatch, images, tmp_path)
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()
    fit(images, checkpoint=tmp_path)
    after = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


# --------------------------------------------------------------------------------------------
# another fit
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"lr": 0.1}, r"lr was 0\.003 and is 0\.1"),
        ({"random_state": 1}, "random_state was 0 and is 1"),
        ({"max_epochs": 7}, "max_epochs was 5 and is 7"),
        ({"augmentation": lambda image: image}, "augmentation was null and is .*lambda"),
        ({"net_params": {"optimizer__betas": (0.5, 0.9)}}, "net_params was null"),
        ({"class_weight": {"h": 2, "v": 1}}, "class_weight was null"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_parameters_are_refused(params, said, images, tmp_path):
    fit(images, checkpoint=tmp_path)
    before = states(tmp_path)
    with pytest.raises(CheckpointError, match=f"another fit .*{said}.*delete this one"):
        fit(images, checkpoint=tmp_path, **params)
    assert states(tmp_path) == before


def test_what_does_not_change_a_fit_is_not_asked(images, tmp_path):
    first = fit(images, checkpoint=tmp_path)
    others = {"verbose": 1, "num_workers": 1, "ram_limit": 0, "memory": tmp_path, "tta": 2,
              "on_error": "nan", "warm_start": True}  # fmt: skip
    assert_same(fit(images, checkpoint=tmp_path, **others), first)
    assert_same(fit(images, checkpoint=tmp_path, max_epochs=5, lr=0.003), first)  # "auto" is


def test_other_images_and_labels_are_refused(images, files, tmp_path):
    X, y = images
    fit((X, y), checkpoint=tmp_path / "arrays")
    changed = X.copy()
    changed[3, 4, 5] ^= 1
    with pytest.raises(CheckpointError, match=r"another fit \(other images\)"):
        fit((changed, y), checkpoint=tmp_path / "arrays")
    with pytest.raises(CheckpointError, match="other labels"):
        fit((X, y[::-1]), checkpoint=tmp_path / "arrays")
    with pytest.raises(CheckpointError, match="other sample_weight"):
        CXRClassifier(max_epochs=5, random_state=0, checkpoint=tmp_path / "arrays").fit(
            X, y, sample_weight=np.arange(1, 25)
        )
    elsewhere = [str(tmp_path / Path(path).name) for path in files]
    for path, copy in zip(files, elsewhere, strict=True):
        Path(copy).write_bytes(Path(path).read_bytes())
    first = fit((files, y), checkpoint=tmp_path / "files", image_size=20)
    again = fit((elsewhere, y), checkpoint=tmp_path / "files", image_size=20)
    assert_same(again, first)  # the content counts, wherever it lies
    Path(elsewhere[0]).write_bytes(Path(files[1]).read_bytes())
    with pytest.raises(CheckpointError, match="other images"):
        fit((elsewhere, y), checkpoint=tmp_path / "files", image_size=20)


def test_a_split_by_other_patients_is_another_fit(images, tmp_path):
    X, y = images
    clf = CXRClassifier(max_epochs=2, random_state=0, early_stopping=True, checkpoint=tmp_path)
    clf.fit(X, y, groups=np.arange(24))
    with pytest.raises(CheckpointError, match="other split of early stopping"):
        clf.fit(X, y, groups=np.arange(24) // 6)


def test_a_warm_start_from_elsewhere_is_another_fit(images, tmp_path):
    clf = fit(images, warm_start=True).set_params(checkpoint=tmp_path)
    fit(images, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="other first weights"):
        clf.fit(*images)


def test_a_callback_that_cannot_be_kept_is_named_before_the_first_epoch(images, tmp_path):
    with pytest.raises(InputError, match=r"callback 'holder' .*handle_"):
        fit(images, checkpoint=tmp_path, net_params={"callbacks": [("holder", Holder())]})


# --------------------------------------------------------------------------------------------
# damage
# --------------------------------------------------------------------------------------------


def damage(path, how):
    content = path.read_bytes()
    if how == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "one bit":
        path.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    elif how == "longer":
        path.write_bytes(content + b"\0")
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "a pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "a link":
        path.rename(path.with_suffix(".elsewhere"))
        path.symlink_to(path.with_suffix(".elsewhere"))


DAMAGES = ["cut short", "empty", "one bit", "longer", "a folder", "a pipe", "a link"]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes and links")
def test_a_damaged_state_falls_back_to_the_one_before(how, images, tmp_path, monkeypatch):
    undisturbed = fit(images)
    fit_killed_in_epoch(5, monkeypatch, images, tmp_path)
    damage(tmp_path / states(tmp_path)[-1], how)
    with pytest.warns(SkcxrWarning, match="epoch-00004.* going on from epoch 3"):
        resumed = fit(images, checkpoint=tmp_path)
    assert_same(resumed, undisturbed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(images, checkpoint=tmp_path)


def test_where_all_are_damaged_the_fit_begins_anew_and_says_so(images, tmp_path):
    first = fit(images, checkpoint=tmp_path)
    for name in states(tmp_path):
        damage(tmp_path / name, "one bit")
    with pytest.warns(SkcxrWarning, match="the fit begins anew"):
        again = fit(images, checkpoint=tmp_path)
    assert_same(again, first)
    assert [name[:11] for name in states(tmp_path)] == ["epoch-00004", "epoch-00005"]


def put_state(folder, tensors, told):
    """Put a state of any content under a name with the right hash."""
    content = safetensors.torch.save(tensors, told)
    name = f"epoch-00099-{hashlib.sha256(content).hexdigest()}.safetensors"
    (folder / name).write_bytes(content)


def test_a_forged_state_is_none(images, tmp_path):
    """Its name has the right hash, and its content is something else."""
    fit(images, checkpoint=tmp_path)
    for told in ({}, {"skcxr": "["}, {"skcxr": "{}"}):
        put_state(tmp_path, {"0": torch.zeros(3)}, told)
        with pytest.warns(SkcxrWarning, match="epoch-00099-.*going on from epoch 5"):
            fit(images, checkpoint=tmp_path)


FORGED = [
    ("epoch", 10**9), ("epoch", "x"), ("epoch", None), ("epoch", 1.5), ("epoch", -5),
    ("identity", []), ("identity", None), ("identity", {"images": 3}), ("seed", "x"), ("seed", -1),
    ("state", []), ("state", None),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), FORGED, ids=str)
def test_a_state_with_a_forged_entry_is_none(key, value, images, tmp_path):
    first = fit(images, checkpoint=tmp_path, random_state=None)
    newest = tmp_path / states(tmp_path)[-1]
    told = {**json.loads(header(newest)), key: value}
    put_state(tmp_path, safetensors.torch.load(newest.read_bytes()), {"skcxr": json.dumps(told)})
    with pytest.warns(SkcxrWarning, match="epoch-00099-.*going on from epoch 5"):
        again = fit(images, checkpoint=tmp_path, random_state=None)
    assert_same(again, first)


@pytest.mark.parametrize("state", [
    {"history": [{}] * 5}, {"history": [{}] * 5, "weights": {}},
])  # fmt: skip
def test_a_state_that_does_not_fit_the_net_is_refused(state, images, tmp_path):
    fit(images, checkpoint=tmp_path)
    told = {**json.loads(header(tmp_path / states(tmp_path)[-1])), "epoch": 5, "state": state}
    put_state(tmp_path, {"0": torch.zeros(3)}, {"skcxr": json.dumps(told)})
    with pytest.raises(CheckpointError, match="a state that does not fit the net"):
        fit(images, checkpoint=tmp_path)


def test_a_state_of_a_newer_format_is_left_alone(images, tmp_path):
    fit(images, checkpoint=tmp_path)
    newest = tmp_path / states(tmp_path)[-1]
    told = {**json.loads(header(newest)), "format": 2}
    put_state(tmp_path, safetensors.torch.load(newest.read_bytes()), {"skcxr": json.dumps(told)})
    before = states(tmp_path)
    with pytest.raises(CheckpointError, match="is of format 2, not 1; nothing was changed"):
        fit(images, checkpoint=tmp_path)
    assert states(tmp_path) == before


@pytest.mark.parametrize("path", ["", os.fsencode("bytes")])
def test_a_folder_has_a_name(path, images):
    class Bytes:
        def __fspath__(self):
            return path

    with pytest.raises(InputError, match="is not the name of a folder"):
        fit(images, checkpoint=path if isinstance(path, str) else os.PathLike.register(Bytes)())


def test_drafts_of_a_killed_process_are_cleared_and_other_files_left(images, tmp_path):
    fit(images, checkpoint=tmp_path, max_epochs=1)
    draft = tmp_path / f".{states(tmp_path)[0]}.part"
    draft.write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "epoch-1.safetensors").write_text("mine")
    for name in states(tmp_path):
        if len(name) > 30:
            (tmp_path / name).unlink()
    fit(images, checkpoint=tmp_path, max_epochs=1)
    assert not draft.exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "epoch-1.safetensors").read_text() == "mine"


# --------------------------------------------------------------------------------------------
# folders that cannot be used
# --------------------------------------------------------------------------------------------


def test_a_file_in_place_of_a_folder(images, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "fit", "a\0b"):
        with pytest.raises(CheckpointError, match="cannot be used"):
            fit(images, checkpoint=path)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_named(number, images, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(skcxr._checkpoints.os, "replace", refuse)
    with pytest.raises(CheckpointError, match=f"cannot be written: {os.strerror(number)}"):
        fit(images, checkpoint=tmp_path)
    assert states(tmp_path) == []
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of a process")
def test_a_disk_that_fills_up_leaves_the_last_whole_state(images, tmp_path, monkeypatch):
    """With a limit on the size of a file for a disk that is full; the fit goes on later."""
    undisturbed = fit(images)
    fit_killed_in_epoch(3, monkeypatch, images, tmp_path)
    before = states(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CheckpointError, match="cannot be written: File too large"):
            fit(images, checkpoint=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert states(tmp_path) == before
    assert_same(fit(images, checkpoint=tmp_path), undisturbed)


def test_two_fits_do_not_share_a_folder(images, tmp_path, monkeypatch):
    monkeypatch.setattr(skcxr._checkpoints, "_PATIENCE", 0.2)
    with (
        FileLock(tmp_path / "lock", is_singleton=False),
        pytest.raises(CheckpointError, match="in use by another fit"),
    ):
        fit(images, checkpoint=tmp_path)
    fit(images, checkpoint=tmp_path)


# --------------------------------------------------------------------------------------------
# killed
# --------------------------------------------------------------------------------------------

CHILD = """
import sys
import numpy as np, torch
torch.set_num_threads(1)
from skcxr import CXRClassifier
rng = np.random.default_rng(0)
X, y = rng.integers(0, 255, (80, 32, 32)).astype(np.uint8), np.arange(80) % 2
clf = CXRClassifier("cxrnet", max_epochs=12, ema=0.95, early_stopping=True, n_iter_no_change=99,
                    checkpoint=sys.argv[1], random_state=0)
print("begins", flush=True)
clf.fit(X, y, groups=np.arange(80))
torch.save(clf.module_.state_dict(), sys.argv[2])
"""


def run_and_kill(folder, result, after):
    """Run the fit in a process that is killed after some seconds; None lets it end."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(result)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    if after is not None:
        time.sleep(after)
        child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    return child.returncode


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_process_that_is_killed_at_any_moment_goes_on(tmp_path):
    assert run_and_kill(tmp_path / "whole", tmp_path / "whole.pt", None) == 0
    right = torch.load(tmp_path / "whole.pt", weights_only=True)
    rng = random.Random(0)
    for round_ in range(2):
        folder, result = tmp_path / f"{round_}", tmp_path / f"{round_}.pt"
        for _ in range(2):
            run_and_kill(folder, result, rng.uniform(0.1, 0.6))
        assert run_and_kill(folder, result, None) == 0
        found = torch.load(result, weights_only=True)
        assert all(torch.equal(found[key], right[key]) for key in right)


# --------------------------------------------------------------------------------------------
# as a parameter
# --------------------------------------------------------------------------------------------


def test_a_saved_model_does_not_name_the_folder(images, tmp_path):
    clf = fit(images, checkpoint=tmp_path / "private name")
    saved = save_model(clf, tmp_path / "model")
    assert "private name" not in (Path(saved) / "config.json").read_text()


HOLDER = """
import sys
from skcxr._checkpoints import CheckpointFolder
with CheckpointFolder(sys.argv[1]).held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_against_another_process(images, tmp_path, monkeypatch):
    monkeypatch.setattr(skcxr._checkpoints, "_PATIENCE", 0.2)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match="in use by another fit"):
            fit(images, checkpoint=tmp_path)
        other.kill()
    fit(images, checkpoint=tmp_path)  # the system has let go
