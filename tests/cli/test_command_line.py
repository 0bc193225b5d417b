"""Bad input: one line that names the thing, what was found and what is accepted; exit code not 0; nothing left."""

import csv
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from handgrad import __version__
from handgrad.cli.command_line import FolderCheck
from handgrad.cli.configuration import folder_name, run_name
from handgrad.cli.help import help_text
from handgrad.files import locked
from tests.conftest import results

NUMBER = "accepted is a number > 0"
WHOLE = "accepted is a whole number >= 1"
L2 = "accepted is a number >= 0 or a list of them"

DIGITS = "a whole number of 400 digits; accepted are 18 at most, larger numbers like 1e30"
BRACKETS = "brackets within one another; accepted are 10 at most"
LONG = "9" * 400

# The words, and what the line must say.
BAD = [
    # types and ranges
    ("lr=abc", f"lr=abc: {NUMBER}"),
    ("lr=0", f"lr=0: {NUMBER}"),
    ("lr=-1", f"lr=-1: {NUMBER}"),
    ("lr=nan", f"lr=NaN: {NUMBER}"),
    ("lr=inf", f"lr=Infinity: {NUMBER}"),
    ("lr=null", f"lr=null: {NUMBER}"),
    ("lr=true", f"lr=true: {NUMBER}"),
    ("lr=[1,2]", f"lr=[1, 2]: {NUMBER}"),
    ("l2=-1", f"l2=-1: {L2}"),
    ("l2=nan", f"l2=NaN: {L2}"),
    ("l2=inf", f"l2=Infinity: {L2}"),
    ("l2=abc", f"l2=abc: {L2}"),
    ("l2=[]", f"l2=[]: {L2}"),
    ("l2=[0,-1]", f"l2=[0, -1]: {L2}"),
    ("l2=[0,abc]", f'l2=[0, "abc"]: {L2}'),
    ("l2=[1,1.0]", "l2=[1.0, 1.0]: the values of a path must differ"),
    ("l2=null", f"l2=null: {L2}"),
    ("epochs=0", f"epochs=0: {WHOLE}"),
    ("epochs=1.5", f"epochs=1.5: {WHOLE}"),
    ("epochs=null", f"epochs=null: {WHOLE}"),
    ("batch_size=0", f"batch_size=0: {WHOLE}"),
    ("batch_size=abc", f"batch_size=abc: {WHOLE}"),
    ("batch_size=60000", "batch_size=60000: accepted are 1 to 50000"),
    ("seed=-1", "seed=-1: accepted is a whole number >= 0"),
    ("seed=1.5", "seed=1.5: accepted is a whole number >= 0"),
    ("patience=0", "patience=0: accepted is a whole number >= 1, or null"),
    ("patience=x", "patience=x: accepted is a whole number >= 1, or null"),
    ("penalize_bias=1", "penalize_bias=1: accepted is true or false"),
    ("threads=0", "threads=0: accepted is a whole number >= 1, or auto"),
    ("optimizer.momentum=1", "optimizer.momentum=1: accepted is a number >= 0 and < 1"),
    ("optimizer=adam optimizer.betas=[2,0.9]", "optimizer.betas=[2, 0.9]: accepted is two numbers >= 0 and < 1"),
    ("callbacks.checkpoint.every_seconds=abc", "every_seconds=abc: accepted is a number >= 0"),
    ("callbacks.gradient_check.directions=0", f"directions=0: {WHOLE}"),
    ("l2={a:1}", f'l2={{"a": 1}}: {L2}'),
    ("callbacks=null", "callbacks=null: accepted is an option of the group"),
    ("data.digits=[1,1]", "two or more different whole numbers from 0 to 9"),
    ("data.digits=[1,10]", "two or more different whole numbers from 0 to 9"),
    ("data.digits=[1]", "two or more different whole numbers from 0 to 9"),
    ("data.digits=3", "two or more different whole numbers from 0 to 9"),
    ("data.shuffle=maybe", "data.shuffle=maybe: accepted is true or false"),
    ("data.train_size=0", "train_size=0: accepted is a whole number from 1"),
    ("data.train_size=70000", "train_size=70000: accepted are 1 to 50000"),
    # combinations
    ("lr=1 l2=2", "lr=1 with l2=2: an SGD step multiplies the weights by 1 - lr * l2 = -1 and diverges"),
    ("task=logistic data.digits=[1,2,3]", "task=logistic: 3 classes; accepted are exactly 2"),
    ("optimizer.lr=1", "optimizer.lr=1: not to be set by itself; set lr instead"),
    ("trainer.max_epochs=3", "trainer.max_epochs: no such key; did you mean 'epochs'?"),
    ("callbacks.results.hparams.seed=1", "seed: no such key; did you mean 'seed'?"),
    ("data.train_size=100", "batch_size=128: accepted are 1 to 100"),
    ("task=1", "task=1: accepted is an option of the group, by its name in conf/task/"),
    ("task=[softmax,logistic]", "accepted is an option of the group, by its name in conf/task/"),
    ("optimizer=[sgd,adam]", "accepted is an option of the group, by its name in conf/optimizer/"),
    # names
    ("lrr=1", "lrr: no such key; did you mean 'lr'?"),
    ("shuffle=false", "shuffle: no such key; did you mean 'data.shuffle'?"),
    ("data.digit=[1,2]", "data.digit: no such key; did you mean 'data.digits'?"),
    ("penalise_bias=true", "did you mean 'penalize_bias'?"),
    ("task=sofmax", "task=sofmax: accepted are logistic, multilabel, softmax; did you mean 'softmax'?"),
    ("experiment=course_softmx", "did you mean 'course_softmax'?"),
    ("optimizer=lbfgs", "optimizer=lbfgs: accepted are adam, exact, sgd"),
    ("data.split=ful", "data.split=ful: accepted is one of full, course, report; did you mean 'full'?"),
    ("trainer.accelerator=gpuu", "trainer.accelerator=gpuu: accepted is one of auto, cpu, gpu, cuda, mps"),
    ("trainer.precision=16-mixed", "trainer.precision=16-mixed: accepted is one of 32-true, 64-true"),
    ("l2=[0,1", "l2=[0,1: cannot be read"),
    # what a foreign configuration could do
    ("trainer.gradient_clip_val=1", "trainer.gradient_clip_val: no such key"),
    ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches: no such key"),
    ("+trainer.gradient_clip_val=1", "keys can be set, not added or removed"),
    ("~logger", "keys can be set, not added or removed"),
    ("task.model._target_=os.system", "classes are not set on the command line"),
    ("data={_target_:os.system,command:true}", "classes are not set on the command line"),
    ("callbacks.results.folder=/tmp/x", "callbacks.results.folder: no such key"),
    ("callbacks.checkpoint.folder=/tmp/x", "callbacks.checkpoint.folder: no such key"),
    ("logger.save_dir=/tmp/x", "logger.save_dir: no such key"),
    ("hydra.callbacks={x:1}", "of Hydra's own settings, accepted are"),
    ("hydra.output_subdir=/tmp/x", "of Hydra's own settings, accepted are"),
    ("hydra.searchpath=[/tmp]", "of Hydra's own settings, accepted are"),
    ("data@hydra.callbacks=mnist", "keys can be set, not added or removed"),
    ("--config-dir=/tmp", "--config-dir: not an option here"),
    ("--config-path /tmp", "--config-path: not an option here"),
    ("-cn evil", "-cn: not an option here"),
    ("--experimental-rerun=x.pickle", "--experimental-rerun: not an option here"),
    ("hydra.run.dir=/tmp/elsewhere", "accepted is a folder below outputs/"),
    ("hydra.run.dir=outputs/../../elsewhere", "accepted is a folder below outputs/"),
    ("hydra.run.dir=outputs", "accepted is a folder below outputs/"),
    ("hydra.run.dir=str(/../outputs/b)", "hydra.run.dir=/../outputs/b: accepted is a folder below outputs/"),
    ("hydra.run.dir=outputs/$x", "accepted is a folder below outputs/, like outputs/my_run, without $"),
    ("hydra.sweep.dir=${oc.env:HOME}", "accepted is a folder below outputs/"),
    # what no type or parser would hold
    *(
        (f"{key}={LONG}", f"{key}: {DIGITS}")
        for key in (
            *("epochs", "seed", "batch_size", "patience", "l2", "lr", "threads", "trainer.devices", "data.train_size"),
            *("optimizer.momentum", "callbacks.weight_images.rows", "callbacks.checkpoint.every_seconds", "any.other"),
        )
    ),
    (f"l2=[0,{LONG}]", f"l2: {DIGITS}"),
    (f"-m l2=0,-{LONG}", f"l2: {DIGITS}"),
    (f"data=features data.train=x.npz data.class_weight={{a:{LONG}}}", f"data.class_weight: {DIGITS}"),
    (f"l2=[{','.join(['1'] * 5001)}]", "l2: 5,001 values; accepted are 5,000 at most"),
    (f"epochs={'9' * 5000}", "epochs: a whole number of 5000 digits"),
    (f"l2={'[' * 2000}0{']' * 2000}", f"l2: a value of 2000 {BRACKETS}"),
    (f"data.class_weight={'{a:' * 50}1{'}' * 50}", f"data.class_weight: a value of 50 {BRACKETS}"),
    ("data.root=a\0b", r"data.root=a\x00b: accepted is text without"),
    # no value below a dot, and values in place of groups and callbacks
    ("optimizer=adam optimizer.betas=null", "optimizer.betas=null: accepted is two numbers"),
    ("trainer.devices=null", "trainer.devices=null: accepted is a whole number >= 1, auto, or a list"),
    ("select.refit=null", "select.refit=null: accepted is true or false"),
    *(
        (f"logger={value}", f"logger={value}: accepted is an option of the group, by its name in conf/logger/")
        for value in ("false", "True", "nan", "inf", "null", "NULL", "5", "[]", "{}")
    ),
    ("-m logger=none,true", "logger=none,true: accepted is an option of the group"),
    ("callbacks.curves=5", "callbacks.curves=5: accepted is null, which switches it off"),
    ("task.model=null", "task.model=null: not to be set by itself; set task instead"),
    ("optimizer._partial_=foo", "optimizer._partial_: no such key"),
    # names that the system refuses, and lines that a value would forge
    (f"data.root={'a' * 300}", "cannot be read or written (File name too long)"),
    (f"hydra.run.dir=outputs/{'a' * 300}", "cannot be read or written (File name too long)"),
    (f"hydra.run.dir=outputs/{'/'.join(['a' * 200] * 30)}", "cannot be read or written (File name too long)"),
    ("hydra.run.dir='outputs/a\nerror:x'", "accepted is a folder below outputs/"),
    ("select.metric='a\nerror:\tforged'", r"select.metric=a\nerror:\tforged: accepted is one of"),
    ("task=a\nerror:", r"task=a\nerror:: cannot be read"),
    # resuming
    ("resume=outputs/nothing", "resume=outputs/nothing: .hydra/overrides.yaml is missing there"),
    ("resume=/etc", "resume=/etc: accepted is a folder below outputs/"),
    ("resume=http://example.org/x", "resume=http://example.org/x"),
    ("resume=latest", "resume=latest: no unfinished run with a checkpoint below outputs/"),
    ("resume=lates", "resume=lates: accepted is latest, or a folder below outputs/; did you mean 'latest'?"),
    ("resume=true", "resume=true: accepted with -m, of a sweep; of a run it is resume=latest, or its folder"),
    ("resume='outputs/nothing'", "resume=outputs/nothing: .hydra/overrides.yaml is missing there"),
    ("resume=", "resume=: accepted is a folder below outputs/"),
    ("resume=latest lr=1", "lr=1: resume goes on with the run's own settings"),
    ("-m l2=0,1 resume=true", "resume=true: no sweep below outputs/ was started with l2=0,1"),
    ("-m l2=0,1 resume=outputs/x", "resume=outputs/x: a sweep accepts resume=true"),
]


@pytest.mark.no_cover
@pytest.mark.parametrize(("words", "line"), BAD, ids=[words for words, _ in BAD])
def test_bad_input_is_one_line(words, line, command, tmp_path):
    ended = command(*words.split(" "))
    assert ended.code == 1
    told = [text for text in ended.err.splitlines() if text.startswith("error: ")]
    assert len(told) == 1
    assert line in told[0]
    assert "Traceback" not in ended.err
    assert not list(tmp_path.glob("outputs/*/*")), "a run that never started leaves no folder"


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("optimizer=exact", "--help")])
def test_help_is_for_people(words, command):
    assert command(*words) == (0, help_text() + "\n", "")


def test_the_version_is_ours(command):
    assert command("--version") == (0, f"handgrad {__version__}\n", "")


def test_a_current_folder_that_hydra_would_take_for_another_is_refused(command, tmp_path, monkeypatch):
    """Hydra resolves the path of a run's folder like any value."""
    here = tmp_path / "a${oc.env:HOME}b"
    here.mkdir()
    monkeypatch.chdir(here)
    ended = command(*F)
    assert (ended.code, ended.err) == (
        1,
        f"error: {here}: the current folder; accepted is one without ${{ in its name\n",
    )
    assert list(here.iterdir()) == []


def test_folder_names_are_one_short_folder():
    assert folder_name("l2=0.2,task=softmax") == "l2=0.2,task=softmax"
    assert "/" not in folder_name("data.root=../../x")
    layer = folder_name("data.train=/far/away/features/layer01/train.npz,data=features")
    assert layer.startswith("data.train=layer01_train.npz,data=features_")
    shards = folder_name("data.train=[/far/away/a/1.npy,/far/away/a/2.npy],seed=1")
    assert shards.startswith("data.train=[a_1.npy,a_2.npy],seed=1_")
    assert folder_name("") == "defaults", "else the job would train in the sweep's own folder"


def test_the_resolved_folder_is_what_is_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = OmegaConf.create({"x": "../../y", "hydra": {key: {"dir": "outputs/${x}"} for key in ("run", "sweep")}})
    for key, start in (("run", FolderCheck().on_run_start), ("sweep", FolderCheck().on_multirun_start)):
        with pytest.raises(SystemExit) as ended:
            start(config)
        assert ended.value.code == 1
        told = f"error: hydra.{key}.dir=outputs/../../y: accepted is a folder below outputs/, like outputs/my_run\n"
        assert capsys.readouterr().err == told


def test_a_runs_folder_tells_its_settings(command, tmp_path):
    assert command("task=logistic", "lr=-1").code == 1
    assert run_name("softmax", "") == "softmax"
    assert run_name("logistic", "epochs=1,l2=[0,2],task=logistic") == "logistic,epochs=1,l2=[0,2]"
    assert run_name("/../../x", "task=softmax") == folder_name("/../../x")
    assert command("experiment=report_logistic", "epochs=1", "logger=none").code == 0
    (found,) = tmp_path.glob("outputs/*/*")
    assert re.fullmatch(
        r"\d\d-\d\d-\d\d_logistic,epochs=1,experiment=report_logistic,logger=none_[0-9a-f]{6}", found.name
    )


def test_a_long_name_keeps_what_is_typed_most():
    """In TensorBoard it is the run's name."""
    words = [
        f"callbacks.{name}=null" for name in ("checkpoint", "curves", "divergence_check", "figures", "progress_bar")
    ]
    found = folder_name(",".join([*words, "l2=[0,0.5]", "seed=3", "task=logistic"]))
    assert found.startswith("l2=[0,0.5],seed=3,task=logistic,callbacks.checkpoint=null,")
    assert len(found) == 120


@pytest.mark.parametrize(
    "jobs",
    [
        [f"l2={list(range(200))}{end}" for end in "ab"],
        [f"data.root={name}" for name in ("a b", "a_b", "a/b", "a:b", "a  b")],
        ["", "defaults=1"],
        [f"data.train={folder}/features/train.npz" for folder in ("/a", "/b", "b", "")],
        [f"data.train={letter * 120}" for letter in "üあ"],
        ["data.root=a/b", folder_name("data.root=a/b")],  # typed as what the first becomes
        ["task.name=A", "task.name=a"],  # one folder to file systems that know no capitals
        [f"data.y={letter * 120}" for letter in "水木"],
    ],
)
def test_different_jobs_never_share_a_folder(jobs):
    names = {folder_name(job) for job in jobs}
    assert len(names) == len(jobs)
    assert len({name.lower() for name in names}) == len(jobs)
    assert all(0 < len(name.encode()) <= 120 for name in names)


JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")


@pytest.mark.parametrize(
    ("swept", "folders", "launcher"),
    [
        (("threads=1,2",), ["threads=1", "threads=2"], ()),
        pytest.param(("threads=1,2",), ["threads=1", "threads=2"], JOBLIB, marks=pytest.mark.torture),
        (("threads=1",), ["threads=1"], ()),
        (("logger=none,tensorboard",), ["logger=none", "logger=tensorboard"], ()),
    ],
)
def test_every_job_of_a_sweep_trains_in_a_folder_of_its_own(swept, folders, launcher, command, tmp_path):
    words = ("experiment=report_logistic", "epochs=1", "hydra.sweep.dir=outputs/sweep")
    ended = command("-m", *words, *swept, *launcher)
    assert (ended.code, ended.out.count("Files: ")) == (0, 1 + len(folders)), ended.err
    found = sorted(
        path.parent.name.rpartition("report_logistic,")[2] for path in tmp_path.glob("outputs/sweep/*/results.csv")
    )
    assert found == folders
    assert not (tmp_path / "outputs" / "sweep" / "checkpoints").exists()
    rows = results(tmp_path / "outputs" / "sweep")
    assert [row["status"] for row in rows] == ["ok"] * len(folders)
    text = (tmp_path / "outputs" / "sweep" / "results.csv").read_text()
    assert ",28,25," in text, "counts stay whole in a sweep's table"


@pytest.mark.parametrize(
    "value", ["outputs/run ", " outputs/run", "'outputs/run'", '"outputs/run"', "outputs/x/../run"]
)
def test_a_folder_is_what_hydra_reads_in_the_word(value, command, tmp_path):
    words = ("experiment=report_logistic", "epochs=1", "logger=none")
    assert command(*words, "hydra.run.dir=outputs/run").code == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("outputs/run/**/*") if path.is_file()}
    ended = command(*words, "l2=1", f"hydra.run.dir={value}")
    assert (ended.code, ended.err.count("holds a run already")) == (1, 1)
    assert {path: path.read_bytes() for path in tmp_path.glob("outputs/**/*") if path.is_file()} == before
    assert command(*words, f"hydra.run.dir={value.replace('outputs', 'elsewhere')}").code == 1


def test_finished_means_with_these_very_settings(command, tmp_path):
    """Without checkpoints a folder with results was all that was looked at."""
    words = ("experiment=report_logistic", "epochs=1", "callbacks.checkpoint=null", "hydra.run.dir=outputs/run")
    assert command(*words).code == 0
    before = (tmp_path / "outputs/run/results.csv").read_bytes()
    again = command(*words, "logger=none", "threads=2")
    assert (again.code, "outputs/run has finished already" in again.err) == (0, True), again.err
    for word, told in {
        "optimizer=adam": "optimizer=adam: outputs/run holds a run that finished with optimizer=sgd",
        "data.digits=[2,3]": "data.digits=[2, 3]: outputs/run holds a run that finished with data.digits=[3, 2]",
        "l2=[0,1]": "l2=[0, 1]: outputs/run holds a run that finished with l2=[0.0]",
        "data.train_size=500": "data.train_size=500: outputs/run holds a run that finished with data.train_size=null",
        "callbacks.early_stopping=null": "callbacks.early_stopping=null: outputs/run holds a run that finished with",
    }.items():
        ended = command(*words, word)
        assert (ended.code, ended.err.count("error: ")) == (1, 1), ended.err
        assert f"error: {told}" in ended.err
    off = (*words[:-1], "callbacks.early_stopping=null", "hydra.run.dir=outputs/off")
    assert command(*off).code == 0
    ended = command(*words[:-1], "hydra.run.dir=outputs/off")
    assert (ended.code, ended.err.count("callbacks.early_stopping=(absent): outputs/off holds a run that")) == (1, 1)
    (tmp_path / "outputs/run/results.csv").write_bytes(before[:10])
    assert "results.csv: damaged, or no results of a run" in command(*words, "logger=none").err, "whose?"
    ended = command(*words)
    assert (ended.code, "outputs/run/results.csv: damaged; the run is done again" in ended.err) == (0, True)
    assert len((tmp_path / "outputs/run/results.csv").read_bytes().splitlines()) == 2


def test_a_sweep_survives_a_failed_run_and_names_it(command, tmp_path):
    ended = command(
        "-m", "experiment=report_logistic", "l2=0,-1,0.2", "epochs=1", "hydra.sweep.dir=outputs/sweep", "logger=none"
    )
    assert ended.code == 1
    assert "failed: epochs=1,experiment=report_logistic,l2=-1,logger=none: l2=-1: accepted is" in ended.err
    finished = {path.parent.name for path in tmp_path.glob("outputs/sweep/*/results.csv")}
    assert finished == {f"epochs=1,experiment=report_logistic,l2={l2},logger=none" for l2 in ("0", "0.2")}


def test_a_failed_run_stands_in_its_sweeps_table(command, tmp_path):
    words = ("-m", "experiment=report_logistic", "l2=0,-1", "epochs=1", "hydra.sweep.dir=outputs/sweep", "logger=none")
    assert "l2=-1  failed" in command(*words).out
    with open(tmp_path / "outputs/sweep/results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["l2"], row["status"]) for row in rows] == [("0.0", "ok"), ("-1", "failed")]


def test_a_sweep_with_a_value_of_a_wrong_type_is_refused_before_it_starts(command, tmp_path):
    ended = command("-m", "experiment=report_logistic", "lr=0.1,abc", "epochs=1", "hydra.sweep.dir=outputs/sweep")
    assert (ended.code, ended.err) == (1, "error: lr=abc: accepted is a number > 0\n")
    assert not (tmp_path / "outputs/sweep").exists()


@pytest.mark.parametrize("launcher", [(), pytest.param(JOBLIB, marks=pytest.mark.torture)], ids=["", "joblib"])
def test_failed_in_a_sweeps_table_is_never_exit_0(launcher, command, tmp_path):
    words = ("-m", "experiment=report_logistic", "seed=0,1", "epochs=1", "callbacks.checkpoint=null", "logger=none")
    words += ("hydra.sweep.dir=outputs/sweep", *launcher)
    assert command(*words).code == 0
    damaged, other = (next(tmp_path.glob(f"outputs/sweep/*seed={seed}/results.csv")) for seed in (0, 1))
    whole = damaged.read_bytes(), other.read_bytes()
    damaged.write_bytes(whole[0][:20])
    other.write_bytes(whole[1].replace(b",sgd,", b",adam,"))
    ended = command(*words[:-1], "resume=true")
    assert (ended.code, ended.out.count("  failed")) == (1, 1), ended.err
    assert "holds a run that finished with optimizer=adam" in ended.err
    assert [row["status"] for row in results(tmp_path / "outputs/sweep")] == ["ok", "failed"]
    other.write_bytes(whole[1])
    ended = command(*words)
    assert (ended.code, ended.out.count("  failed")) == (0, 0), "what is right again is no failure"


def test_a_finished_run_whose_results_are_damaged_gets_them_again(command, tmp_path):
    """From its last checkpoint, to the bit: nothing is trained."""
    words = ("-m", "experiment=report_logistic", "l2=0,0.1", "epochs=1", "hydra.sweep.dir=outputs/sweep", "logger=none")
    assert command(*words).code == 0
    damaged = next(tmp_path.glob("outputs/sweep/*l2=0,*/results.csv"))
    before = damaged.read_bytes()
    damaged.write_bytes(before[:-20])
    ended = command(*words)
    assert (ended.code, ended.err.count("has finished already")) == (0, 1), ended.err
    assert f"{damaged.relative_to(tmp_path)}: damaged; the run is done again" in ended.err
    assert "Training from" not in ended.err
    assert damaged.read_bytes() == before


def test_a_run_wants_a_folder_of_its_own(command, tmp_path):
    words = ("experiment=report_logistic", "epochs=1", "hydra.run.dir=outputs/mine", "logger=none")
    assert command(*words).code == 0
    before = (tmp_path / "outputs/mine/results.csv").read_bytes()
    ended = command(*words)  # as it is repeated by SLURM, and by torchrun
    assert (ended.code, ended.err) == (0, "outputs/mine has finished already\n")
    ended = command(*words, "seed=1")
    assert ended.code == 1
    assert "outputs/mine: holds a run already, of other words" in ended.err
    assert (tmp_path / "outputs/mine/results.csv").read_bytes() == before
    stored = tmp_path / "outputs/mine/.hydra/config.yaml"
    before = stored.read_bytes()
    assert command(*words, "lr=0.1").code == 1
    assert stored.read_bytes() == before  # resume= still goes on as it began


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


F = ("experiment=report_logistic", "epochs=1", "logger=none")


def test_a_run_and_a_sweep_never_share_a_folder(command, tmp_path):
    assert command(*F, "seed=5", "hydra.run.dir=outputs/one").code == 0
    assert command("-m", *F, "seed=1,2", "hydra.sweep.dir=outputs/sweep").code == 0
    before = content(tmp_path / "outputs")
    for words, told in {
        ("-m", "seed=1,2", "hydra.sweep.dir=outputs/one"): "hydra.sweep.dir=outputs/one: holds a run already",
        ("-m", "seed=1,2", "hydra.sweep.dir='outputs/one'"): "hydra.sweep.dir=outputs/one: holds a run already",
        ("-m", "seed=3", "hydra.sweep.dir=outputs/sweep"): "hydra.sweep.dir=outputs/sweep: holds another sweep already",
        ("-m", "seed=3", "hydra.sweep.dir=outputs/sweep/x"): "outputs/sweep/x: lies in the folder of another sweep",
        ("seed=1", "hydra.run.dir=outputs/sweep"): "hydra.run.dir=outputs/sweep: outputs/sweep holds a sweep; accepted",
        ("seed=1", "hydra.run.dir=outputs/sweep/x"): "outputs/sweep/x: outputs/sweep holds a sweep; accepted",
    }.items():
        ended = command(*words, *F)
        assert (ended.code, ended.err.count("error: "), ended.err.count("\n")) == (1, 1, 1), ended.err
        assert told in ended.err
        assert content(tmp_path / "outputs") == before
    assert command("-m", *F, "seed=1,2", "resume=true").code == 0


def test_a_sweep_goes_on_in_a_folder_of_any_name(command, tmp_path):
    words = ("-m", *F, "l2=-1", "seed=1,2")
    command(*words, r"hydra.sweep.dir='outputs/it\'s, a sweep'")
    before = sorted(content(tmp_path / "outputs"))
    assert "failed: " in command(*words, "resume=true").err
    assert sorted(content(tmp_path / "outputs")) == before


def test_a_live_folder_is_no_sweeps(command, tmp_path):
    """A run that has just begun, or another process with the same sweep."""
    with locked(tmp_path / "outputs/x/.lock"):
        ended = command("-m", *F, "seed=1,2", "hydra.sweep.dir=outputs/x")
        assert (ended.code, ended.err) == (1, "error: hydra.sweep.dir=outputs/x: a run or a sweep is under way there\n")
        assert [path.name for path in (tmp_path / "outputs/x").iterdir()] == [".lock"]


def test_one_process_at_a_time_trains_in_a_folder(command, tmp_path):
    words = ("experiment=report_logistic", "epochs=1", "hydra.run.dir=outputs/mine", "logger=none")
    assert command(*words).code == 0
    run = tmp_path / "outputs" / "mine"
    (run / "results.csv").unlink()
    files = sorted(run.rglob("*"))
    with locked(run / ".lock"):
        ended = command("resume=outputs/mine")
        assert (ended.code, ended.err) == (1, "error: outputs/mine: a run is under way there\n")
        assert "no unfinished run" in command("resume=latest").err
        assert sorted(run.rglob("*")) == files
    assert command("resume=latest", "threads=0").code == 1
    ended = command("resume=latest", "threads=2")
    assert (ended.code, ended.err.count("Going on with outputs/mine\n")) == (0, 1), ended.err
    assert "Threads: 2\n" in ended.err


def test_a_sweep_that_cannot_be_summed_up_has_failed(command, monkeypatch):
    def broken(folder):
        raise OSError(28, "No space left on device", "sweep.png")

    monkeypatch.setattr("handgrad.cli.endings.sum_up", broken)
    ended = command("-m", "experiment=report_logistic", "l2=0,1", "epochs=1", "logger=none")
    assert ended.code == 1
    assert "error: sweep.png: cannot be read or written (No space left on device)" in ended.err


@pytest.mark.draws
def test_a_callback_can_be_switched_off(command, tmp_path):
    words = ("experiment=report_logistic", "epochs=1", "callbacks.weight_images=null", "callbacks.figures=null")
    assert command(*words, "hydra.run.dir=outputs/mine").code == 0
    assert not list(tmp_path.glob("outputs/mine/*.png"))
    assert EventAccumulator(str(tmp_path / "outputs/mine")).Reload().Tags()["images"] == []


def test_extending_a_sweep_leaves_finished_runs_alone(command, tmp_path):
    words = ("-m", "experiment=report_logistic", "epochs=1", "hydra.sweep.dir=outputs/sweep", "logger=none")
    assert command(*words, "l2=0").code == 0
    (first,) = tmp_path.glob("outputs/sweep/*/results.csv")
    before = first.stat()
    assert command(*words, "l2=0,0.2").code == 0
    assert len(list(tmp_path.glob("outputs/sweep/*/results.csv"))) == 2
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_the_same_command_goes_on_with_what_it_began(command, tmp_path):
    words = ("experiment=report_logistic", "epochs=1", "logger=none", "hydra.run.dir=outputs/mine")
    assert command(*words).code == 0
    results = tmp_path / "outputs/mine/results.csv"
    results.unlink()
    ended = command(words[3], *words[:3])
    assert (ended.code, results.exists()) == (0, True)
    assert "Training from" not in ended.err, "all its updates were saved"
    (tmp_path / "outputs/mine/.hydra/overrides.yaml").write_text("[")
    assert "damaged" in command(*words).err


def test_a_sweep_on_several_devices_is_refused(command):
    ended = command("-m", "l2=0,1", "trainer.devices=2")
    assert ended.code == 1
    assert "trainer.devices=2: accepted in a sweep is 1; each process would run it all" in ended.err
