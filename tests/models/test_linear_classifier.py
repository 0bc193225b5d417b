"""What both models share: parameters with a path axis, each entry's best weights, and what a checkpoint must be."""

import copy
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from handgrad.callbacks.checkpointing import Checkpointing
from handgrad.data.blocks import BlockLoader
from handgrad.errors import InputError
from handgrad.fit import fit
from handgrad.functions.linear_map import GROUP
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.models.logistic_regression import LogisticRegression
from handgrad.models.multilabel_regression import MultilabelRegression
from handgrad.models.softmax_regression import SoftmaxRegression
from handgrad.solvers.protocol import Progress
from handgrad.solvers.sgd import SGD
from handgrad.training.trainer import block_trainer
from tests.data.test_base import clouds

L2 = (0.0, 0.002, 1.0)
KINDS = {"softmax": (SoftmaxRegression, 4), "logistic": (LogisticRegression, 2)}
kinds = pytest.mark.parametrize("kind", KINDS)
penalized = pytest.mark.parametrize("penalize_bias", [False, True])


def made(kind="softmax", l2=L2, penalize_bias=False, seed=0) -> LinearClassifier:
    """A model with weights that differ in every number, and with a loop of ``Plain``."""
    model_class, classes = KINDS[kind]
    model = model_class(num_features=5, num_classes=classes, l2=l2, penalize_bias=penalize_bias)
    fill(model, seed)
    model.pipeline = Plain()
    return model


def fill(model: LinearClassifier, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in (model.weight, model.bias):
        parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def samples(kind="softmax", n=30, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=generator), torch.randint(0, KINDS[kind][1], (n,), generator=generator)


class Plain:
    """A loop that evaluates all at once and trains nothing, but says that it did."""

    total = None
    one_at_a_time = False

    def __init__(self) -> None:
        self.started, self.loaded, self.finished, self.outputs = None, None, 0, []
        self.moved = torch.tensor([True, False, True])

    def start(self, *how) -> None:
        self.started = how

    def finish(self) -> None:
        self.finished += 1

    def train(self, block):
        curves = {"loss": torch.full((len(block), 3), 0.5, dtype=torch.float64)}
        return Progress(curves, len(block) * self.moved.long(), self.moved)

    def done(self):
        return torch.zeros(3, dtype=torch.bool)

    def sums(self, outputs, *tasks):
        self.outputs.append(outputs)
        return [function(*data) for function, data in tasks]

    def state_dict(self):
        return {"memory": {}, "seconds": 1.0}

    def load_state_dict(self, state) -> None:
        self.loaded = state


@kinds
def test_all_begin_at_zero_and_train(kind):
    model_class, classes = KINDS[kind]
    model = model_class(num_features=5, num_classes=classes, l2=L2)
    outputs = model_class.num_outputs(classes)
    assert model.weight.shape == model.best_weight.shape == (3, outputs, 5)
    assert model.bias.shape == model.best_bias.shape == (3, outputs)
    assert not any(tensor.any() for tensor in (model.weight, model.bias, model.steps, model.best_step))
    assert model.active.tolist() == [1, 1, 1]
    assert model.best_loss.tolist() == [torch.inf] * 3
    assert {name for name, _ in model.named_parameters()} == {"weight", "bias"}
    assert model.configure_optimizers() is None
    assert not model.automatic_optimization


def test_hyperparameters_are_plain_so_that_a_checkpoint_loads_safely(tmp_path):
    model = made(l2=torch.tensor([0, 1]))
    assert dict(model.hparams) == {"num_features": 5, "num_classes": 4, "l2": [0.0, 1.0], "penalize_bias": False}
    assert {type(value) for value in model.hparams["l2"]} == {float}
    torch.save(dict(model.hparams), tmp_path / "x")
    assert torch.load(tmp_path / "x", weights_only=True) == dict(model.hparams)


def test_the_base_itself_tells_no_classes_apart():
    with pytest.raises(NotImplementedError):
        LinearClassifier(num_features=5, num_classes=2, l2=[0])
    with pytest.raises(NotImplementedError):
        LinearClassifier.decide(torch.zeros(1, 2, 3))


@kinds
def test_forward_is_the_linear_map_of_each_entry(kind):
    model, (input, _) = made(kind).double(), samples(kind)
    logits = model(input.double())
    assert logits.shape == (3, 30, model.bias.shape[1])
    for entry in range(3):
        expected = input.double() @ model.weight[entry].T + model.bias[entry]
        torch.testing.assert_close(logits[entry], expected, rtol=1e-13, atol=1e-13)


@pytest.mark.slow  # traces
@pytest.mark.parametrize("kind", [*KINDS, "multilabel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_model_is_exported_for_batches_of_any_size(kind, dtype):
    model_class, classes = (KINDS | {"multilabel": (MultilabelRegression, 4)})[kind]
    model = model_class(num_features=5, num_classes=classes, l2=L2[:2]).to(dtype)
    fill(model, 0)
    size = torch.export.Dim("N", min=1)
    exported = torch.export.export(model, (torch.randn(7, 5, dtype=dtype),), dynamic_shapes={"input": {0: size}})
    for samples in (1, 7, 3 * GROUP + 1):
        input = torch.randn(samples, 5, dtype=dtype)
        torch.testing.assert_close(exported.module()(input), model(input))


@kinds
@penalized
def test_the_objective_is_the_models(kind, penalize_bias):
    model, (input, target) = made(kind, penalize_bias=penalize_bias).double(), samples(kind)
    model.l2.copy_(torch.tensor(L2))

    def total(tensor):
        return tensor

    objective = model.objective(total)
    assert objective.total is total
    assert model.objective().total is None
    found = model.objective().value(model.weight, model.bias, input, target)
    for entry, l2 in enumerate(L2):
        logits, squares = model(input.double())[entry], model.weight[entry].square().sum()
        if kind == "softmax":
            loss = F.cross_entropy(logits, target)
        else:
            loss = F.binary_cross_entropy_with_logits(logits[:, 0], target.double())
        squares = squares + model.bias[entry].square().sum() if penalize_bias else squares
        assert found[entry].item() == pytest.approx((loss + l2 / 2 * squares).item(), rel=1e-6)  # l2 was rounded


def test_at_the_start_l2_is_as_precise_as_the_parameters():
    model = made().double()
    assert model.l2[1].item() != 0.002  # made in float32
    model.on_fit_start()
    assert model.l2.tolist() == list(L2)
    objective, weight, bias, active = model.pipeline.started
    assert objective.l2.tolist() == list(L2)
    assert (weight, bias, active) == (model.weight, model.bias, model.active)
    model.on_train_end()
    assert model.pipeline.finished == 1


def test_a_training_step_counts_the_updates_of_entries_that_train(monkeypatch):
    model, counted = made(), []
    monkeypatch.setattr("handgrad.models.linear_classifier.count_updates", lambda trainer, n: counted.append(n))
    model._trainer = SimpleNamespace(should_stop=False)
    loader = BlockLoader(*samples(), batch_size=3, epochs=1, check_interval=4, shuffle=False, seed=0, step=lambda: 0)
    curves = [model.training_step(block, 0) for block in loader]
    assert model.steps.tolist() == [10, 0, 10]
    assert counted == [4, 4, 2]
    assert model.moved.tolist() == [True, False, True]
    assert [found["loss"].shape for found in curves] == [(4, 3), (4, 3), (2, 3)]


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_losses_and_hits_are_sums_over_samples(kind, dtype):
    """In half precision the parameters are rounded; what is computed with them is not."""
    model, (input, target) = made(kind).to(dtype), samples(kind)
    loss, hits = model.loss_and_hits(input, target)
    assert loss.dtype == hits.dtype == torch.float64
    for entry in range(3):
        logits = input.double() @ model.weight[entry].double().T + model.bias[entry].double()
        if kind == "softmax":
            expected, decided = F.cross_entropy(logits, target, reduction="sum"), logits.argmax(1)
        else:
            z = logits[:, 0]
            expected = F.binary_cross_entropy_with_logits(z, target.double(), reduction="sum")
            decided = (torch.sigmoid(z) > 0.5).long()
        assert loss[entry].item() == pytest.approx(expected.item(), rel=1e-5)
        assert hits[entry].item() == (decided == target).sum().item()
    if dtype != torch.bfloat16:
        assert torch.equal(model.hits(input, target), hits)


def check(model, val, train, steps) -> None:
    """A check after ``steps`` updates of each entry."""
    model._trainer = SimpleNamespace(callback_metrics={})
    model.steps.copy_(torch.tensor(steps))
    model.validation_step({"val": val, "train": train}, 0)
    model.on_validation_epoch_end()


def test_a_check_measures_means_and_the_norm():
    model, val, train = made(penalize_bias=True), samples(n=20), samples(n=50, seed=8)
    check(model, val, train, [1, 1, 1])
    assert model.pipeline.outputs == [3 * 4]
    val_loss, val_hits = model.loss_and_hits(*val)
    expected = {
        "loss/val": val_loss / 20,
        "accuracy/val": val_hits / 20,
        "accuracy/train": model.loss_and_hits(*train)[1] / 50,
        "weight_norm": (model.weight.square().sum((1, 2)) + model.bias.square().sum(1)).sqrt(),
        "penalty": model.weight.new_tensor(L2) / 2 * (model.weight.square().sum((1, 2)) + model.bias.square().sum(1)),
    }
    assert model.metrics.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(model.metrics[name].double(), values.double(), rtol=1e-6, atol=0)


def test_each_entry_keeps_its_own_best_weights():
    model, val = made(), samples(n=200)
    candidates = [(seed, made(seed=seed).loss_and_hits(*val)[0] / 200) for seed in range(1, 8)]
    for count, (seed, _) in enumerate(candidates, 1):
        fill(model, seed)
        check(model, val, val, [10 * count, 20 * count, 30 * count])
    losses = torch.stack([loss for _, loss in candidates])
    best = losses.argmin(0)
    assert len(set(best.tolist())) > 1, "the test wants entries that are best at different times"
    assert torch.equal(model.best_loss, losses.min(0).values)
    assert model.best_step.tolist() == ((best + 1) * torch.tensor([10, 20, 30])).tolist()
    for entry, index in enumerate(best.tolist()):
        then = made(seed=candidates[index][0])
        assert torch.equal(model.best_weight[entry], then.weight[entry])
        assert torch.equal(model.best_bias[entry], then.bias[entry])


def test_of_equal_losses_the_first_is_best_and_one_that_is_no_number_never():
    model, val = made(), samples()
    check(model, val, val, [1, 1, 1])
    first = model.best_weight.clone()
    check(model, val, val, [2, 2, 2])
    fill(model, 1)
    model.weight.data[0] = torch.nan
    model.weight.data[1:] *= 100
    check(model, val, val, [3, 3, 3])
    assert model.best_step.tolist() == [1, 1, 1]
    assert torch.equal(model.best_weight, first)


@penalized
def test_the_squared_norm_holds_the_bias_where_it_is_penalized(penalize_bias):
    model = made(penalize_bias=penalize_bias)
    model.weight.data, model.bias.data = torch.full((3, 4, 5), 2.0), torch.full((3, 4), 3.0)
    model.weight.data[1] = 1e-4
    assert model.weight_norm_squared().dtype == torch.float64
    bias = 36 if penalize_bias else 0
    assert model.weight_norm_squared().tolist() == pytest.approx([80 + bias, 2e-7 + bias, 80 + bias], rel=1e-6)


def test_best_lends_the_best_weights_and_puts_the_last_back():
    model, (input, _) = made(), samples()
    model.best_weight, model.best_bias = made(seed=1).weight.detach().clone(), made(seed=1).bias.detach().clone()
    last, best = model(input), made(seed=1)(input)
    before = (model.weight.data_ptr(), model.bias.data_ptr())
    with model.best():
        assert torch.equal(model(input), best)
        assert torch.equal(model.state_dict()["weight"], model.best_weight)  # as best.ckpt is saved
    assert torch.equal(model(input), last)
    with pytest.raises(RuntimeError, match="amid"), model.best():
        raise RuntimeError("amid")
    assert torch.equal(model(input), last)
    assert (model.weight.data_ptr(), model.bias.data_ptr()) == before  # what the solver's state holds on to


def test_a_test_measures_the_best_and_the_last_weights_of_every_set():
    model, sets = made(), {"train": samples(n=40), "val": samples(n=20, seed=8), "test": samples(n=30, seed=7)}
    other = made(seed=1)
    model.best_weight, model.best_bias = other.weight.detach().clone(), other.bias.detach().clone()
    model.test_step(sets, 0)
    names = [f"{split}_{measure}" for split in sets for measure in ("loss", "accuracy")] + ["weight_norm_squared"]
    assert set(model.final) == {prefix + name for prefix in ("", "last_") for name in names}
    for prefix, same in (("", other), ("last_", model)):
        assert torch.equal(model.final[f"{prefix}weight_norm_squared"], same.weight_norm_squared())
        for split, (input, target) in sets.items():
            loss, hits = same.loss_and_hits(input, target) / len(target)
            assert torch.equal(model.final[f"{prefix}{split}_loss"], loss)
            assert torch.equal(model.final[f"{prefix}{split}_accuracy"], hits)


@pytest.mark.parametrize("l2", [(0.02,), (0.0, 0.02)])
@pytest.mark.slow  # trains
def test_lightning_tests_a_model_that_was_loaded_and_callbacks_of_others_see_what_a_run_measures(l2, tmp_path):
    data = clouds()
    seen: list[dict] = []
    watching = pl.callbacks.LambdaCallback(
        on_validation_end=lambda trainer, model: seen.append(dict(trainer.callback_metrics)),
        on_test_end=lambda trainer, model: seen.append(dict(trainer.callback_metrics)),
    )
    model = SoftmaxRegression(num_features=data.num_features, num_classes=data.num_classes, l2=l2)
    result = fit(data, model, SGD(lr=0.1), [Checkpointing(), watching], tmp_path, threads=1, accelerator="cpu")
    ends = [f"/l2={value}" for value in l2] if len(l2) > 1 else [""]
    names = [f"{split}_{name}" for split in ("train", "val", "test") for name in ("loss", "accuracy")]
    expected = {f"{name}{end}": row[name] for row, end in zip(result.rows, ends, strict=True) for name in names}
    for end, best in zip(ends, model.best_loss.tolist(), strict=True):
        assert min(metrics[f"val_loss{end}"] for metrics in seen[:-1]) == best
    for name in ("best", "last"):
        path = tmp_path / "checkpoints" / f"{name}.ckpt"
        loaded = SoftmaxRegression.load_from_checkpoint(path, weights_only=True)
        (found,) = block_trainer([], None, logger=False, accelerator="cpu").test(loaded, clouds(), verbose=False)
        for metrics in (found, seen[-1]):
            assert {key: float(metrics[key]) for key in expected} == pytest.approx(expected, rel=1e-5)


def checkpoint_of(model: LinearClassifier, **more) -> dict:
    found = {"hyper_parameters": copy.deepcopy(dict(model.hparams)), **more}
    model.on_save_checkpoint(found)
    return found


@kinds
def test_a_checkpoint_of_the_same_model_is_taken_over(kind):
    saved, model = made(kind), made(kind)
    saved.best_loss = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    checkpoint = checkpoint_of(saved, callbacks={}, loops={})
    assert checkpoint["model"] == type(saved).__name__
    model.on_load_checkpoint(checkpoint)
    assert torch.equal(model.best_loss, saved.best_loss)
    assert model.pipeline.loaded == saved.pipeline.state_dict()
    assert "solver" not in checkpoint_of(saved)  # where the weights alone are saved


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (made("logistic"), "the checkpoint's model is LogisticRegression; expected SoftmaxRegression"),
        (made(l2=(0, 0.002, 2)), "the checkpoint's l2 is [0.0, 0.002, 2.0]; expected [0.0, 0.002, 1.0]"),
        (made(l2=(0, 1)), "the checkpoint's l2 is [0.0, 1.0]; expected [0.0, 0.002, 1.0]"),
        (made(penalize_bias=True), "the checkpoint's penalize_bias is True; expected False"),
        (
            SoftmaxRegression(num_features=6, num_classes=4, l2=L2),
            "the checkpoint's num_features is 6; expected 5",
        ),
        (
            SoftmaxRegression(num_features=5, num_classes=3, l2=L2),
            "the checkpoint's num_classes is 3; expected 4",
        ),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_by_name(other, told):
    model = made()
    checkpoint = checkpoint_of(other)
    checkpoint["solver"] = {}
    with pytest.raises(InputError) as error:
        model.on_load_checkpoint(checkpoint)
    assert str(error.value) == told
    assert model.best_loss.tolist() == [torch.inf] * 3
    assert model.pipeline.loaded is None


def test_a_file_that_names_no_model_is_refused():
    with pytest.raises(InputError, match="the checkpoint's model is None; expected SoftmaxRegression"):
        made().on_load_checkpoint({"state_dict": {}})


def test_a_long_path_says_what_it_needs_before_it_takes_it(monkeypatch, caplog):
    monkeypatch.setattr("handgrad.models.linear_classifier.available_memory", lambda: 5 * 10**9)
    with pytest.raises(InputError) as error:
        SoftmaxRegression(num_features=784, num_classes=10, l2=range(100_000))
    assert str(error.value) == (
        "l2: 100,000 values of 7,850 parameters need about 31.4 GB of memory, 5.0 GB are available; "
        "accepted are 15,923 values at most"
    )
    with caplog.at_level("INFO"):
        SoftmaxRegression(num_features=784, num_classes=10, l2=range(3))
        assert not caplog.records
        monkeypatch.setattr("handgrad.models.linear_classifier.WORTH_SAYING", 10**5)
        SoftmaxRegression(num_features=784, num_classes=10, l2=range(3))
    assert [record.message for record in caplog.records] == [
        "l2: 3 values of 7,850 parameters need about 0.0 GB of memory"
    ]
