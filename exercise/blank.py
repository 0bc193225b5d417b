"""Three gradients to derive by hand: write a formula in place of each `...`, then type `make exercise` again.

It compares every term with differences of the loss above it and says what is right so far; terms come in any order.
What is written is the forward: leave that, the names and the `return` as they are. Help with the mathematics is
`docs/derivation.md`, whose formulas end in the terms that are asked for here: derive first, then compare.

N samples, D features, K classes, counted by n, i and k. `dx` is the derivative of the loss, or of the penalty, for x:
it has the shape of x.
"""

import torch

# --- 1. Logistic regression: target[n] is y[n], 0 or 1 ----------------------------------------------------------------


def logistic_logits(input, weight, bias):
    """z[n] = sum_i input[n, i] weight[i] + bias;  input (N, D), weight (D,), bias () -> z (N,)"""
    return input @ weight + bias


def logistic_loss(z, target):
    """C = 1/N sum_n (-y[n] ln p[n] - (1 - y[n]) ln(1 - p[n])), the mean, with p = 1 / (1 + exp(-z));  -> ()"""
    p = torch.sigmoid(z)
    return (-target * torch.log(p) - (1 - target) * torch.log(1 - p)).mean()


def logistic_gradient(input, weight, bias, target):
    z = logistic_logits(input, weight, bias)
    p = torch.sigmoid(z)
    dz = ...  # (N,), of the loss for each logit: through ln p, ln(1 - p) and p
    dweight = ...  # (D,), the chain rule: from dz through the linear map
    dbias = ...  # ()
    dinput = ...  # (N, D)
    return {"dz": dz, "dweight": dweight, "dbias": dbias, "dinput": dinput}


# --- 2. Softmax regression: target[n] is the class, 0 to K - 1 --------------------------------------------------------


def softmax_logits(input, weight, bias):
    """z[n, k] = sum_i input[n, i] weight[k, i] + bias[k];  input (N, D), weight (K, D), bias (K,) -> z (N, K)"""
    return input @ weight.T + bias


def softmax_loss(z, target):
    """C = 1/N sum_n -ln p[n, target[n]], the mean, with p[n, k] = exp(z[n, k]) / sum_j exp(z[n, j]);  -> ()"""
    p = torch.softmax(z, 1)
    return -torch.log(p[torch.arange(len(z)), target]).mean()


def softmax_gradient(input, weight, bias, target):
    z = softmax_logits(input, weight, bias)
    p = torch.softmax(z, 1)
    y = torch.nn.functional.one_hot(target, z.shape[1])  # (N, K), 1 where k is the class of n, else 0
    dz = ...  # (N, K): every p[n, k] depends on every z[n, j], through the sum below the fraction
    dweight = ...  # (K, D)
    dbias = ...  # (K,)
    dinput = ...  # (N, D)
    return {"dz": dz, "dweight": dweight, "dbias": dbias, "dinput": dinput}


# --- 3. The L2 penalty ------------------------------------------------------------------------------------------------


def l2_penalty(weight, l2):
    """l2 R with R = 1/2 sum_k sum_i weight[k, i]^2;  weight (K, D), l2 () -> ()"""
    return l2 * (weight**2).sum() / 2


def l2_gradient(weight, l2):
    dweight = ...  # (K, D)
    dl2 = ...  # ()
    return {"dweight": dweight, "dl2": dl2}
