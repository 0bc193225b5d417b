"""Names of the command line: which may be set, and what is suggested for one that may not: never what is refused."""

import pytest

from handgrad.cli import names
from handgrad.cli.command_line import check_arguments
from handgrad.cli.names import ALSO, CALLBACKS, GROUPS, has, owners, takes
from handgrad.cli.settings import SETTINGS
from handgrad.errors import InputError

LOCAL, SLURM = "hydra/launcher=submitit_local", "hydra/launcher=submitit_slurm"
MEANT = [
    ("learning_rate=0.1", "learning_rate: no such key; did you mean 'lr'?"),
    ("weight_decay=0.1", "weight_decay: no such key; did you mean 'l2'?"),
    ("trainer.max_epochs=3", "trainer.max_epochs: no such key; did you mean 'epochs'?"),
    ("digits=[3,2]", "digits: no such key; did you mean 'data.digits'?"),
    ("digits=3", "digits: no such key; data.digits accepts a list of two or more different whole numbers"),
    ("optimiser=adam", "optimiser: no such key; did you mean 'optimizer'?"),
    ("optimiser=lbfgs", "optimiser: no such key; --help"),
    ("Task=softmax", "Task: no such key; did you mean 'task'?"),
    ("device=cuda", "device: no such key; did you mean 'trainer.accelerator'?"),
    ("trainer.device=2", "trainer.device: no such key; did you mean 'trainer.devices'?"),
    ("precision=64", "precision: no such key; trainer.precision accepts one of 32-true"),
    ("l1=0.1", "l1: no such key; --help"),
    ("tolerance=1e-5", "tolerance: no such key; optimizer=exact has optimizer.tolerance"),
    ("optimizer=exact tolerance=1e-5", "tolerance: no such key; did you mean 'optimizer.tolerance'?"),
    ("folds=5", "folds: no such key; data=features has data.folds"),
    ("data=features folds=5", "folds: no such key; did you mean 'data.folds'?"),
    ("train=a.npz", "train: no such key; data=features has data.train"),
    ("holdout=.2", "holdout: no such key; data=idx and data=features have data.holdout"),
    ("callback.curves=null", "callback.curves: no such key; did you mean 'callbacks.curves'?"),
    ("callback.curves=5", "callback.curves: no such key; --help"),
    ("trainer.gpus=1", "trainer.gpus: no such key; --help"),
    # what is refused is not suggested
    (
        "optimizer=adam optimizer.momentum=.9",
        "optimizer.momentum: no such key with optimizer=adam; optimizer=sgd has it",
    ),
    (
        "-m optimizer=sgd,adam optimizer.momentum=.9",
        "optimizer.momentum: no such key with optimizer=sgd or optimizer=adam",
    ),
    (
        "data.train=a.npz data=feature",
        "data=feature: accepted are fashion_mnist, features, idx, kmnist, mnist; did you mean 'features'?",
    ),
    # no setting
    ("softmax", "softmax: no word of key=value, like l2=2.0; did you mean 'task=softmax'?"),
    ("resume", "did you mean 'resume=latest'?"),
    ("patience", "patience: no word of key=value, like l2=2.0; accepted in patience= is a whole number >= 1, or null"),
    ("=5", "=5: no word of key=value"),
    ("task.lr=1", "task.lr=1: not to be set by itself; set lr instead"),
    ("data.seed=1", "data.seed=1: not to be set by itself; set seed instead"),
    ("task.digits=[1,2]", "task.digits=[1,2]: not to be set by itself; set data.digits instead"),
    ("task.model=null", "task.model=null: not to be set by itself; set task instead"),
    ("select=accuracy", "select=accuracy: not to be set as a whole; its settings are select.metric, select.rule"),
    ("optimizer._partial_=true", "optimizer._partial_: no such key"),
    ("callbacks.curves=5", "callbacks.curves=5: accepted is null, which switches it off"),
    ("callbacks.figures=null callbacks.weight_images=null callbacks.weight_images.rows=1", "rows: of no use with"),
    ("logger=false", "logger=false: accepted is an option of the group"),
    ("lr=012", "lr=012: accepted is a number > 0"),
    ("epochs='3'", "epochs=3: accepted is a whole number >= 1"),
    ("optimizer.momentum=null", "optimizer.momentum=null: accepted is a number >= 0 and < 1"),
    ("data.digits=null", "data.digits=null: accepted is a list of two or more different whole numbers"),
    ("hydra.verbose=x", "hydra.verbose=x: accepted is true or false"),
    # launchers
    ("hydra/launcher=joblib hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs=0: accepted is a number of processes"),
    (
        "hydra/launcher=joblib hydra.launcher.n_jobs=1,2",
        "n_jobs=1,2: several values; accepted is a number of processes",
    ),
    ("hydra.launcher.n_jobs=2", "n_jobs: no such key with hydra/launcher=basic; hydra/launcher=joblib has it"),
    (
        "hydra/launcher=joblb",
        "accepted is one of basic, joblib, submitit_local, submitit_slurm; did you mean 'joblib'?",
    ),
    ("-m hydra/launcher=joblib,basic", "hydra/launcher=joblib,basic: accepted is one of basic"),
    ("hydra.launcher={n_jobs:2}", "hydra.launcher={n_jobs:2}: of Hydra's own settings, accepted are"),
    (
        f"{LOCAL} hydra.launcher.nodes=2",
        "no such key with hydra/launcher=submitit_local; hydra/launcher=submitit_slurm",
    ),
    (f"{LOCAL} hydra.launcher.timeout_min=0.5", "hydra.launcher.timeout_min=0.5: accepted is a whole number >= 1"),
    (f"{LOCAL} hydra.launcher.timeout_min=null", "hydra.launcher.timeout_min=null: accepted is a whole number >= 1"),
    (
        f"{SLURM} hydra.launcher.partiton=gpu",
        "partiton: no such key with hydra/launcher=submitit_slurm; did you mean '",
    ),
    *(
        (
            f"{SLURM} hydra.launcher.{key}=x",
            f"hydra.launcher.{key}: no such key with hydra/launcher=submitit_slurm; its",
        )
        for key in ("setup", "submitit_folder", "additional_parameters")  # code, folders, anything
    ),
    *(
        (f"{SLURM} hydra.launcher.{key}={value}", f"hydra.launcher.{key}={told or value}: accepted is text like ")
        for key, value, told in (
            ("partition", "'gpu\nrm'", r"gpu\nrm"),
            ("partition", "${oc.env:HOME}", ""),
            ("partition", "-gpu", ""),
            ("name", "../x", ""),
            ("name", "'x;rm'", "x;rm"),
            ("comment", "'$(rm)'", "$(rm)"),
            ("constraint", "'a;b'", "a;b"),
            ("exclude", "/etc/passwd", ""),
            ("mem_per_cpu", "much", ""),
            ("account", "true", ""),
        )
    ),
    # several values
    ("l2=0,1", "l2=0,1: several values; accepted are 'l2=[0,1]', a path in one run, or -m l2=0,1, a sweep"),
    ("l2=choice(0,1)", "accepted are 'l2=[0,1]', a path in one run, or -m l2=choice(0,1), a sweep"),
    ("data.digits=3,2", "data.digits=3,2: several values; accepted is 'data.digits=[3,2]'"),
    ("lr=0.1,0.2", "lr=0.1,0.2: several values; accepted is -m lr=0.1,0.2, a sweep with a run for each"),
    ("task=softmax,logistic", "accepted is -m task=softmax,logistic, a sweep"),
    ("l2=0,02", "l2=0,02: several values; accepted is l2=0.02, with a decimal point"),
    ("lr=0,5", "lr=0,5: several values; accepted is lr=0.5, with a decimal point"),
    ("seed=a,b", "seed=a: accepted is a whole number >= 0"),
    ("-m l2=interval(0,1)", "accepted in a sweep are values like"),
    ("-m l2=glob(*)", "accepted in a sweep are values like"),
    ("-m l2=range(0,100000000)", "l2=range(0,100000000): more than 10,000 values"),
    ("-m l2=range(0,1000) seed=range(0,1000)", "-m: a sweep of 1,000,000 runs; accepted are 10,000 at most"),
    ("l2=" + "[" * 3000 + "]" * 3000, "brackets within one another"),
]


@pytest.mark.parametrize(("words", "line"), MEANT, ids=[words[:60] for words, _ in MEANT])
def test_what_is_meant_is_told(words, line):
    with pytest.raises(InputError) as refused:
        check_arguments(words.split(" "))
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_slurm_is_asked_for_is_accepted():
    words = ["partition=gpu", "account=0123", "constraint='intel&gpu'", "exclude='node[01-04],n7'", "gres=gpu:a100:2"]
    check_arguments([SLURM, *(f"hydra.launcher.{word}" for word in (*words, "mem_per_cpu=4GB", "comment='a b'"))])


def test_a_launcher_that_is_not_there_is_told_in_a_line(monkeypatch):
    monkeypatch.setattr(names, "which", lambda name: name == "sbatch" or None)
    check_arguments([SLURM])  # it may be looked at
    with pytest.raises(
        InputError, match=r"^hydra/launcher=submitit_slurm: no command srun here; accepted on a host of"
    ):
        check_arguments(["-m", SLURM, "l2=0,1"])
    monkeypatch.setattr(names, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"submitit is not installed: pip install '\.\[cluster\]'$"):
        check_arguments([LOCAL])
    check_arguments(["hydra/launcher=joblib"])


def test_what_other_programs_call_it_is_a_setting_here():
    assert set(ALSO.values()) <= {*SETTINGS, *GROUPS}
    assert not ALSO.keys() & {*SETTINGS, *GROUPS}


@pytest.mark.parametrize("key", [*SETTINGS, *CALLBACKS, *GROUPS])
def test_what_may_be_set_is_accepted(key):
    value = {**dict.fromkeys(CALLBACKS, "null"), **{group: options[0] for group, options in GROUPS.items()}}.get(
        key, "1"
    )
    for owner in owners(key) or [""]:
        check_arguments([*filter(None, [owner]), f"{key}={value}"])


def test_a_setting_is_there_with_the_options_that_have_it():
    assert has({"optimizer": ["sgd"]}, "optimizer.momentum")
    assert has({}, "optimizer.momentum"), "an experiment may choose it"
    assert not has({"optimizer": ["sgd", "adam"]}, "optimizer.momentum")
    assert has({"data": ["features"]}, "data.shuffle")
    assert has({"data": ["mnist", "fashion_mnist", "kmnist"]}, "data.digits"), "of one kind"
    assert takes("task", "softmax")
    assert not takes("task", "lr")


OPTIONS = [
    ("--cfg jo", "--cfg jo: accepted is one of job, hydra, all; did you mean 'job'?"),
    ("--cfg", "--cfg: accepted is one of job, hydra, all"),
    ("--cfg job -m l2=0,1", "--cfg and -m: accepted is one of them"),
    ("-p trainer", "-p: accepted with --cfg job"),
    ("--cfg job -p", "-p: accepted is the name of a part of the configuration"),
    ("--resolve", "--resolve: accepted with --cfg job"),
    ("--resolve=1 --cfg job", "--resolve=1: accepted is --resolve alone"),
    ("--lr=.1", "--lr: not an option here; did you mean 'lr=…', without dashes?"),
    ("--batch-size 64", "--batch-size: not an option here; did you mean 'batch_size=…', without dashes?"),
    ("--verson", "did you mean '--version'?"),
    ("-x", "-x: not an option here; accepted are --cfg"),
]


@pytest.mark.parametrize(("words", "line"), OPTIONS, ids=[words for words, _ in OPTIONS])
def test_options_are_told_in_one_line(words, line):
    with pytest.raises(InputError) as refused:
        check_arguments(words.split(" "))
    assert line in str(refused.value)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("--cfg hydra", "hydra:\n"),
        ("--cfg=job", "l2: 0.0\n"),
        ("-c job -p trainer", "# @package trainer\n"),
        ("--package trainer --cfg job --resolve", "precision: 32-true\n"),
        ("--info defaults", "Defaults List\n"),
        ("-sc install=bash", "hydra_bash_completion()\n"),
    ],
)
def test_the_value_of_an_option_is_no_word(words, shown, command):
    ended = command(*words.split(" "))
    assert (ended.code, ended.err) == (0, "")
    assert shown in ended.out
