"""Four runs, each a task of a Ray cluster, on a folder that all nodes share: python docs/clusters/ray_runs.py /work"""

import subprocess
import sys

import ray


@ray.remote(num_cpus=4, max_retries=3)
def train(folder: str, seed: int) -> int:
    words = ["task=softmax", f"seed={seed}", "threads=4", f"hydra.run.dir=outputs/seed{seed}"]
    return subprocess.run([sys.executable, "train.py", *words], cwd=folder, check=False).returncode


if __name__ == "__main__":
    ray.init(address="auto")
    codes = ray.get([train.remote(sys.argv[1], seed) for seed in range(4)])
    sys.exit(any(codes))
