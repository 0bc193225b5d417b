"""The teacher's key of ``exercise/blank.py``: what stands in place of each ``...``, by part and term."""

KEY = {
    "logistic": {
        "dz": "(p - target) / len(target)",
        "dweight": "input.T @ dz",
        "dbias": "dz.sum()",
        "dinput": "dz[:, None] * weight",
    },
    "softmax": {
        "dz": "(p - y) / len(target)",
        "dweight": "dz.T @ input",
        "dbias": "dz.sum(0)",
        "dinput": "dz @ weight",
    },
    "l2": {
        "dweight": "l2 * weight",
        "dl2": "(weight**2).sum() / 2",
    },
}
