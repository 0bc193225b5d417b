"""Adam makes the updates of its formula, and those of torch's Adam on what autograd finds."""

import pytest
import torch

from handgrad.solvers.adam import Adam
from tests.solvers.problems import PROBLEMS, assert_close, assert_trained_alone, copies, ones, trained

LR, EPSILON, UPDATES = 0.05, 1e-8, 6
problems = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
decay_rates = pytest.mark.parametrize("betas", [(0.9, 0.999), [0.5, 0.8]])  # a config gives a list


@problems
@decay_rates
def test_the_formula_with_bias_correction(problem, betas):
    state = trained(Adam(lr=LR, betas=betas), problem, UPDATES)
    beta1, beta2 = betas
    parameters = list(problem.start())
    first, second = ([torch.zeros_like(parameter) for parameter in parameters] for _ in betas)
    for t, (input, target, _) in enumerate(problem.block(UPDATES), 1):
        gradients = problem.derivative(*parameters, input, target)
        for i, gradient in enumerate(gradients):
            first[i] = beta1 * first[i] + (1 - beta1) * gradient
            second[i] = beta2 * second[i] + (1 - beta2) * gradient**2
            mean, square = first[i] / (1 - beta1**t), second[i] / (1 - beta2**t)
            parameters[i] = parameters[i] - LR * mean / (square.sqrt() + EPSILON)
    expected = dict(zip(("weight", "bias"), parameters, strict=True))
    for i, name in enumerate(("weight", "bias")):
        expected[f"{name}.step"] = torch.tensor(float(UPDATES))
        expected[f"{name}.exp_avg"], expected[f"{name}.exp_avg_sq"] = first[i], second[i]
    assert_close(copies(state), expected)


@problems
@decay_rates
def test_torchs_adam_of_each_entry_alone(problem, betas):
    state = trained(Adam(lr=LR, betas=betas), problem, UPDATES)
    assert_trained_alone(
        state, problem, UPDATES, lambda parameters: torch.optim.Adam(parameters, lr=LR, betas=tuple(betas))
    )


def test_the_first_update_is_the_learning_rate_long_in_each_number():
    """m / sqrt(v) is the gradient's sign then, whatever its size: what bias correction is for."""
    problem = PROBLEMS["softmax-3-l2-bias"]
    weight, bias = problem.start()
    state = Adam(lr=LR).init(weight.clone(), bias.clone())
    block = problem.block(1)
    Adam(lr=LR).step(problem.objective, state, block, ones(problem))
    for found, start, gradient in zip(
        (state.weight, state.bias), (weight, bias), problem.derivative(weight, bias, *block.batches[0]), strict=True
    ):
        torch.testing.assert_close(found - start, -LR * gradient.sign(), rtol=1e-5, atol=0)
