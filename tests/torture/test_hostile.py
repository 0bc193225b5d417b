"""Words, stored configurations and checkpoints of somebody who means harm.

None of what they name is ever run, and nothing is written where they say.
"""

import hashlib
import io
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from handgrad.runs.checkpoint import WholeCheckpointIO
from handgrad.runs.checkpoint_file import MARK

RAN = "ran"  # a folder that only hostile code makes
FOREIGN = f"# @package _global_\nhydra: {{callbacks: {{x: {{_target_: os.mkdir, path: {RAN}}}}}}}\n"

WORDS = [
    f"task.model._target_=os.mkdir task.model.path={RAN}",
    f"data={{_target_:os.mkdir,path:{RAN}}}",
    f"+evil={{_target_:os.mkdir,path:{RAN}}}",
    f"++data._target_=os.mkdir ++data.path={RAN}",
    f"hydra.callbacks.sweep_end._target_=os.mkdir +hydra.callbacks.sweep_end.path={RAN}",
    f"hydra/callbacks={RAN}",
    f"hydra.job_logging.handlers.console.class=os.mkdir hydra.job_logging.handlers.console.path={RAN}",
    "hydra/job_logging=../../foreign",
    f"-m l2=0,1 hydra.launcher._target_=os.mkdir hydra.launcher.path={RAN}",
    f"-m l2=0,1 hydra.sweeper._target_=os.mkdir hydra.sweeper.path={RAN}",
    "-m l2=0,1 hydra/launcher=../../foreign",
    '-m l2=0,1 hydra/launcher="../../foreign"',
    f"-m l2=0,1 hydra/launcher=submitit_local hydra.launcher.setup=[mkdir,{RAN}]",
    f"-m l2=0,1 hydra/launcher=submitit_slurm hydra.launcher.setup=[mkdir,{RAN}]",
    f"-m l2=0,1 hydra/launcher=submitit_slurm hydra.launcher.additional_parameters={{wrap:{RAN}}}",
    "-m l2=0,1 hydra.launcher.n_jobs=${oc.create:{_target_:os.mkdir}}",
    "-m experiment=../../foreign,report_l2",
    "-m experiment=glob(../../*)",
    "experiment=../../foreign",
    "experiment=${oc.decode:'../../foreign'}",
    "task=../../../foreign",
    "logger=${oc.env:HOME}",
    "--config-dir . experiment=foreign",
    "--config-dir=. experiment=foreign",
    "-cd . experiment=foreign",
    "--config-name=../foreign",
    "-cp /",
    "hydra.searchpath=[file://.] experiment=foreign",
    "hydra.searchpath=[pkg://os]",
    "resume=../foreign",
    "resume=outputs/../foreign",
    "resume=http://localhost/last.ckpt",
    "hydra.run.dir=/tmp/foreign hydra.job.name=train_ddp_process_1 hydra.output_subdir=null",
]


def assert_refused(ended, folder: Path) -> None:
    """Checks that the program ended with one line and that nothing was run."""
    assert not list(folder.rglob(RAN))
    assert ended.code == 1, ended
    assert [line[:7] for line in ended.err.splitlines()].count("error: ") == 1, ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("words", WORDS)
def test_words_name_no_code(words, command, tmp_path):
    for name in ("foreign.yaml", "foreign/foreign.yaml", "experiment/foreign.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(FOREIGN)
    depth = "../" * 30
    assert_refused(command(*words.replace("../../", f"{depth}{tmp_path.relative_to('/')}/").split(" ")), tmp_path)


def test_words_that_lightning_would_add_are_nobodys(command, tmp_path):
    rest = ("hydra.job.name=train_ddp_process_1", "hydra.output_subdir=null")
    assert_refused(command('hydra.run.dir="outputs/x"', *rest), tmp_path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Where the run that all these tests resume is kept."""
    return tmp_path_factory.mktemp("kept") / "x"


@pytest.fixture
def stopped(kept, command, tmp_path) -> Path:
    """The folder of a run that can be resumed."""
    if not kept.exists():
        assert command("experiment=report_logistic", "epochs=1", "logger=none", "hydra.run.dir=outputs/x").code == 0
        (tmp_path / "outputs/x").rename(kept)
        (kept / "results.csv").unlink()
    return shutil.copytree(kept, tmp_path / "outputs/x")


CONFIGURATIONS = {
    "class": {"data": {"_target_": "os.mkdir", "path": RAN}},
    "function that loads": {"data": {"_target_": "torch.load", "f": "evil.ckpt", "weights_only": False}},
    "nested": {"data": {"root": {"_target_": "os.mkdir", "path": RAN}}},
    "in a list": {"data": {"digits": [{"_target_": "os.mkdir", "path": RAN}]}},
    "another callback": {"callbacks": {"evil": {"_target_": "os.mkdir", "path": RAN}}},
    "trainer's plugin": {"trainer": {"plugins": [{"_target_": "os.mkdir", "path": RAN}]}},
    "oc.create": {"data": "${oc.create:{_target_:os.mkdir,path:ran}}"},
    "oc.decode": {"data": '${oc.decode:"{_target_: os.mkdir, path: ran}"}'},
    "oc.env": {"data": {"_target_": "${oc.env:EVIL}", "path": RAN}},
    "oc.env that decodes": {"data": "${oc.decode:${oc.env:EVIL_NODE}}"},
    "reference": {"evil": "os.mkdir", "data": {"_target_": "${evil}", "path": RAN}},
    "oc.dict.values": {"evil": {"a": "os.mkdir"}, "data": {"_target_": "${oc.dict.values:evil}"}},
    "unknown resolver": {"data": {"_target_": "${evil:}", "path": RAN}},
    "instantiate itself": {"data": {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.mkdir"}}},
    "get_method": {"data": {"root": {"_target_": "hydra.utils.get_method", "path": "os.mkdir"}}},
}


def resumed_as_if_untouched(command, stopped: Path) -> None:
    """Checks that a stopped run goes on with its own settings, whatever stands beside its words, and runs nothing."""
    before = torch.load(stopped / "checkpoints" / "last.ckpt", weights_only=True)["handgrad"]["settings"]
    ended = command("resume=outputs/x")
    assert ended.code == 0, ended.err
    assert not list(stopped.parents[1].rglob(RAN))
    assert (stopped / "results.csv").exists()
    assert torch.load(stopped / "checkpoints" / "best.ckpt", weights_only=True)["handgrad"]["settings"] == before


@pytest.mark.parametrize("change", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_stored_configuration_is_never_built(change, stopped, command, monkeypatch):
    """A run goes on from its words; the configuration beside them is for people."""
    monkeypatch.setenv("EVIL", "os.mkdir")
    monkeypatch.setenv("EVIL_NODE", "{_target_: os.mkdir, path: ran}")
    path = stopped / ".hydra" / "config.yaml"
    configuration = OmegaConf.load(path)
    for key, value in change.items():
        merge = isinstance(value, dict) and key in configuration
        OmegaConf.update(configuration, key, value, merge=merge, force_add=True)
    OmegaConf.save(configuration, path)
    resumed_as_if_untouched(command, stopped)


def test_what_hydra_wrote_of_itself_is_never_read(stopped, command):
    (stopped / ".hydra" / "hydra.yaml").write_text(FOREIGN)
    resumed_as_if_untouched(command, stopped)


@pytest.mark.parametrize("words", [words for words in WORDS if not words.startswith(("-m", "resume"))])
def test_stored_words_name_no_code(words, stopped, command, tmp_path):
    (stopped / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(words.split(" ")))
    assert_refused(command("resume=outputs/x"), tmp_path)


CONTENTS = [f"!!python/object/apply:os.mkdir [{RAN}]\n", "{a: 1}", "", "a: [", "\0", "- 1", "- {a: 1}", "- ''", "- [x]"]


@pytest.mark.parametrize("content", CONTENTS, ids=repr)
def test_stored_words_that_are_none_are_refused(content, stopped, command, tmp_path):
    (stopped / ".hydra" / "overrides.yaml").write_text(content)
    assert_refused(command("resume=outputs/x"), tmp_path)


# --- writing elsewhere ------------------------------------------------------------------------------------------------


WRITES = [
    "lr=-1 task.name=/../../../../victim/x",
    "lr=-1 task.name=${oc.decode:'/../../../../victim/x'}",
    "hydra.run.dir=victim",
    "hydra.run.dir=outputs/../victim",
    "hydra.run.dir=str(outputs/../victim)",
    'hydra.run.dir=str("outputs/../victim")',
    "hydra.run.dir='outputs/../victim'",
    "hydra.run.dir=outputs/${oc.decode:'../../victim'}",
    "hydra.run.dir=outputs/link",
    "hydra.run.dir=outputs/link/x",
    "hydra.run.dir=outputs/linked",
    "hydra.output_subdir=../../victim",
    "hydra.job_logging.handlers.file.filename=victim/best.ckpt",
    "logger.save_dir=victim",
    "logger={save_dir:victim}",
    "callbacks.checkpoint.folder=victim",
    "callbacks.checkpoint={folder:victim}",
    "callbacks.weight_images={folder:victim}",
    "callbacks.evil={folder:victim}",
    "callbacks={evil:{folder:victim}}",
    "trainer.default_root_dir=victim",
    "trainer={default_root_dir:victim}",
    "data.folder=victim",
    "-m seed=0,1 hydra.sweep.dir=victim",
    "-m seed=0,1 hydra.sweep.dir=str(outputs/../victim)",
    "-m seed=0,1 hydra.sweep.dir=outputs/link",
    "-m seed=0,1 hydra.sweep.dir=outputs/linked",
    "-m seed=0,1 hydra.sweep.subdir=../../victim",
    "-m seed=0,1 hydra.launcher.temp_folder=victim hydra/launcher=joblib",
    "-m seed=0,1 hydra.launcher.submitit_folder=victim hydra/launcher=submitit_local",
]
QUICK = ("experiment=report_logistic", "epochs=1", "logger=none", "callbacks.figures=null")


@pytest.fixture
def victim(tmp_path) -> Path:
    """A folder of somebody else's, which a folder below outputs/ leads to, and files in another one do."""
    folder = tmp_path / "victim"
    folder.mkdir()
    for name in ("best.ckpt", "last.ckpt", "train.log", ".lock", "config.yaml"):
        (folder / name).write_text("precious")
    (tmp_path / "outputs/linked/.hydra").mkdir(parents=True)
    (tmp_path / "outputs/link").symlink_to(folder)
    (tmp_path / "outputs/linked/train.log").symlink_to(folder / "train.log")
    return folder


def elsewhere(folder: Path) -> dict[Path, bytes | None]:
    """Returns the names and contents of all that stands beside outputs/, where all that is written belongs."""
    found = (path for path in folder.rglob("*") if folder / "outputs" not in (path, *path.parents))
    return {path: path.read_bytes() if path.is_file() else None for path in found}


@pytest.mark.parametrize("words", WRITES)
def test_words_write_nothing_elsewhere(words, victim, command, tmp_path):
    before = elsewhere(tmp_path)
    assert_refused(command(*words.split(" "), *QUICK), tmp_path)
    assert elsewhere(tmp_path) == before


def test_stored_words_write_nothing_elsewhere(victim, stopped, command, tmp_path):
    before = elsewhere(tmp_path)
    for words in WRITES:
        (stopped / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*QUICK, *words.split(" ")]))
        ended = command("resume=outputs/x")
        assert "Traceback" not in ended.err
        assert elsewhere(tmp_path) == before, words
        (stopped / "results.csv").unlink(missing_ok=True)


def test_a_stored_configuration_writes_nothing_elsewhere(victim, stopped, command, tmp_path):
    """Only what conf/ has is built, from words that pass the checks."""
    path = stopped / ".hydra" / "config.yaml"
    configuration = OmegaConf.to_container(OmegaConf.load(path))
    for name, target in {
        "evil": "handgrad.callbacks.checkpointing.Checkpointing",
        "figures": "pytorch_lightning.callbacks.ModelCheckpoint",
    }.items():
        configuration["callbacks"][name] = {"_target_": target, "folder": str(victim), "dirpath": str(victim)}
    configuration["trainer"] |= {"default_root_dir": str(victim), "enable_checkpointing": True}
    configuration["logger"] = {
        "_target_": "handgrad.loggers.tensorboard.TensorBoardPathLogger",
        "save_dir": str(victim),
    }
    configuration["hydra"] = {"run": {"dir": str(victim)}, "runtime": {"output_dir": str(victim)}}
    configuration["data"]["evil"] = configuration["optimizer"]["evil"] = str(victim)
    path.write_text(yaml.safe_dump(configuration))
    before = elsewhere(tmp_path)
    resumed_as_if_untouched(command, stopped)
    assert elsewhere(tmp_path) == before


@pytest.mark.parametrize("name", ["checkpoints", ".hydra", "checkpoints/best.ckpt", "train.log", ".lock"])
def test_a_link_in_a_stored_run_writes_nothing_elsewhere(name, victim, stopped, command, tmp_path):
    """A folder that was received from others: what is written by a name in it would be written over their victim."""
    (stopped / name).rename(victim / "moved")
    (stopped / name).symlink_to(victim / "moved")
    before = elsewhere(tmp_path)
    ended = command("resume=outputs/x")
    assert_refused(ended, tmp_path)
    assert f"outputs/x/{name}: leads to {victim}/moved; accepted are links that stay in " in ended.err
    assert elsewhere(tmp_path) == before


def test_a_run_or_a_sweep_whose_name_hydra_would_resolve_is_not_gone_on_with(stopped, command, tmp_path, monkeypatch):
    monkeypatch.setenv("ELSEWHERE", f"/../../{tmp_path.name}/victim")
    assert command("-m", *QUICK, "seed=0,1", "hydra.sweep.dir=outputs/s").code == 0
    for name in ("x", "s"):
        (tmp_path / "outputs" / name).rename(tmp_path / "outputs" / f"{name}${{oc.env:ELSEWHERE}}")
    before = elsewhere(tmp_path)
    assert_refused(command("resume=latest"), tmp_path)
    assert_refused(command("-m", *QUICK, "seed=0,1", "resume=true"), tmp_path)
    assert elsewhere(tmp_path) == before


# --- checkpoints ------------------------------------------------------------------------------------------------------


class Hostile:
    def __reduce__(self):
        return os.mkdir, (RAN,)


def zipped() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": Hostile()}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("content", [zipped(), pickle.dumps(Hostile())], ids=["zip", "bare pickle"])
def test_a_checkpoint_with_a_valid_checksum_runs_no_code(content, stopped, command, tmp_path):
    path = stopped / "checkpoints" / "last.ckpt"
    path.write_bytes(content + MARK + hashlib.sha256(content).digest())
    ended = command("resume=outputs/x")
    assert_refused(ended, tmp_path)
    assert "last.ckpt: not a checkpoint of this project (" in ended.err


def test_a_checkpoint_names_nothing_that_builds_the_model(stopped, command, tmp_path):
    """Lightning before 2.6.6 ran whatever the hyperparameters named, ``weights_only`` or not (CVE-2026-58659)."""
    from handgrad.models.logistic_regression import LogisticRegression

    path = stopped / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"] |= {"_instantiator": "os.mkdir", "_class_path": RAN}
    WholeCheckpointIO().save_checkpoint(checkpoint, path)
    with pytest.raises(ValueError, match="not in the allowlist of trusted"):
        LogisticRegression.load_from_checkpoint(path, weights_only=True)
    command("resume=outputs/x")
    assert not list(tmp_path.rglob(RAN))
