"""Every file of conf/ composes into something that can be built."""

import inspect
from dataclasses import asdict

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import ListConfig, OmegaConf

from handgrad.cli.configuration import CONF, TARGETS, check, check_targets, identity, leaves, makes_result, plain
from handgrad.errors import InputError
from handgrad.fit import BY_LOSS, fit
from handgrad.training.trainer import block_trainer
from tests.data.idx_samples import images_and_labels, write

pytestmark = pytest.mark.slow  # composes each file of conf/


OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_can_be_built(group, option, composed, tmp_path):
    (tmp_path / "train.csv").write_text("a,y\n1,u\n2,v\n3,u\n4,v\n")
    needed = [f"data.train={tmp_path}/train.csv"] if option in ("features", "multilabel") else []
    needed += ["data=features"] if option == "multilabel" else []
    if option == "idx":
        write(tmp_path / "idx", train=images_and_labels(20, 2))
        needed.append(f"data.folder={tmp_path}/idx")
    cfg = composed(f"{group}={option}", *needed)
    check(cfg)
    data = instantiate(cfg.data)
    model = instantiate(cfg.task.model, num_features=4, num_classes=data.num_classes, l2=[0, 1])
    state = instantiate(cfg.optimizer, _convert_="all").init(model.weight, model.bias)
    assert torch.equal(state.weight, model.weight)
    assert instantiate(cfg.callbacks).keys() == cfg.callbacks.keys()
    assert bool(cfg.logger) == (option != "none")
    if cfg.logger:
        instantiate(cfg.logger, save_dir="outputs", l2=[0, 1])
    assert block_trainer([], None, logger=False, **cfg.trainer).num_devices == 1


def test_experiments_have_the_reports_settings(composed):
    logistic = {"lr": 0.05, "epochs": 50, "shuffle": False, "patience": None}
    softmax = {"lr": 0.01, "epochs": 50, "shuffle": True, "patience": None}
    expected = {
        "logistic": logistic,
        "logistic_early_stopping": logistic | {"epochs": 500, "patience": 10},
        "softmax": softmax,
        "l2": softmax,
    }
    for split in ("course", "report"):
        for name, settings in expected.items():
            cfg = composed(f"experiment={split}_{name}")
            found = {"lr": cfg.lr, "epochs": cfg.epochs, "shuffle": cfg.data.shuffle, "patience": cfg.patience}
            assert found == settings
            assert (cfg.data.split, cfg.batch_size, cfg.penalize_bias) == (split, 128, True)
            assert cfg.l2 == ([0, 0.002, 0.02, 0.2, 2] if name == "l2" else 0)


def test_only_the_projects_classes_are_built(composed):
    cfg = composed()
    cfg.data._target_ = "os.system"
    with pytest.raises(InputError, match=r"data\._target_=os\.system: accepted is a class of this project"):
        check(cfg)


@pytest.mark.parametrize(
    "hostile",
    [
        "callbacks: {threads: {count: {_target_: os.system}}}",
        "optimizer: {betas: [{_target_: torch.load}]}",
        'epochs: "${oc.create:{_target_: os.system}}"',
        'epochs: "${oc.decode:${oc.env:HOSTILE}}"',
        r'epochs: "\\${oc.create:{_target_: os.system}}"',
    ],
)
def test_hidden_classes_are_found(hostile, composed, monkeypatch):
    monkeypatch.setenv("HOSTILE", "{_target_: os.system}")
    cfg = OmegaConf.unsafe_merge(OmegaConf.create(OmegaConf.to_container(composed())), OmegaConf.create(hostile))
    with pytest.raises(InputError, match="accepted is"):
        check(cfg)


def test_a_refit_is_for_the_exact_solver(composed):
    with pytest.raises(InputError) as refused:
        check(composed("select.refit=true"))
    assert str(refused.value) == ("select.refit=true: accepted with optimizer=exact; others stop by the validation set")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "data.folds=5 data.holdout=0.2",
            "data.holdout: of no use with data.folds; accepted is the command without it",
        ),
        (
            "data.val=b.npz data.holdout=0.2",
            "data.holdout: of no use with data.val; accepted is the command without it",
        ),
        ("data.draws=5", "data.draws: of no use with data.shots=null; accepted is the command without it"),
        ("data.label_separator=x", "data.label_separator: of no use with one label per sample; accepted is"),
    ],
)
def test_what_would_have_no_effect_is_refused(words, line, composed):
    with pytest.raises(InputError) as refused:
        check(composed("data=features", "data.train=a.npz", *words.split(" ")))
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize("words", ["data.folds=5", "data.holdout=0.2", "data.shots=[1] data.draws=5"])
def test_what_conf_sets_is_no_word_without_effect(words, composed):
    check(composed("data=features", "data.train=a.npz", "optimizer=exact", *words.split(" ")))


# --- what a run's result follows from -------------------------------------------------------------------------------


OF_RESULT = [
    "optimizer=adam",
    "optimizer.momentum=0.5",
    "data.digits=[3,2]",
    "data.train_size=100",
    "data.split=course",
]
OF_RESULT += ["trainer.precision=64-true", "trainer.accelerator=auto", "task=logistic", "l2=1", "lr=1", "epochs=3"]
OF_RESULT += ["batch_size=3", "seed=3", "patience=null", "penalize_bias=true", "data.shuffle=false"]
OF_RESULT += ["select.metric=accuracy", "select.rule=one_standard_error", "select.refit=true"]
OF_RESULT += ["callbacks.early_stopping=null", "trainer.devices=2", "trainer.strategy=ddp", "optimizer.betas=[0,0]"]
ASIDE = ["logger=none", "threads=2", "callbacks.checkpoint=null", "callbacks.gradient_check.directions=1"]
ASIDE += [
    "callbacks.figures=null",
    "callbacks.weight_images.rows=1",
    "callbacks.progress_bar=null",
    "callbacks.checkpoint.every_seconds=0",
]


@pytest.mark.parametrize("word", OF_RESULT)
def test_what_changes_a_result_is_told_apart(word, composed):
    words = ["optimizer=adam"] if "betas" in word else []
    assert identity(composed(*words, word)) != identity(composed(*words))


@pytest.mark.parametrize("word", ASIDE)
def test_what_only_watches_is_not(word, composed):
    assert identity(composed(word)) == identity(composed())
    assert identity(composed("experiment=report_l2", word)) == identity(composed("experiment=report_l2"))


@pytest.mark.parametrize("words", [(), ("optimizer=adam",), ("experiment=report_l2", "logger=none")])
def test_no_value_is_forgotten(words, composed):
    """Every value of the configuration makes a result, or is linked to one that does, or is put aside by its class."""
    cfg = composed(*words)
    found = identity(cfg)
    assert found.keys() - dict(leaves(plain(cfg))).keys() == {"task", "data", "optimizer"}
    for key, value in leaves(plain(cfg)):
        if key not in found:
            assert key.endswith("_target_") or not makes_result(key) or value.strip("${}") in found, key


def test_the_list_of_classes_has_no_strays():
    named = {
        line.split(":", 1)[1].strip()
        for path in CONF.glob("**/*.yaml")
        for line in path.read_text().splitlines()
        if line.strip().startswith("_target_:")
    }
    assert named == TARGETS | {"handgrad.cli.command_line.FolderCheck", "handgrad.cli.endings.SweepEnd"}
    check_targets([])


def test_defaults_of_the_library_are_those_of_the_configuration(composed):
    """Where a class has a default for those who use it without Hydra."""
    for words in ((), ("optimizer=adam",)):
        cfg = composed(*words)
        nodes = [cfg.optimizer, cfg.task.model, *filter(None, cfg.callbacks.values())]
        for node in nodes:
            parameters = inspect.signature(get_class(node._target_)).parameters.values()
            defaults = {found.name: found.default for found in parameters if found.default is not found.empty}
            found = {name: node[name] for name in defaults.keys() & node.keys()}
            assert {name: tuple(v) if isinstance(v, ListConfig) else v for name, v in found.items()} == {
                name: defaults[name] for name in found
            }
    assert dict(composed().select) == {"_target_": "handgrad.selection.Selection", **asdict(BY_LOSS)}
    assert inspect.signature(fit).parameters["threads"].default == composed("threads=auto").threads
