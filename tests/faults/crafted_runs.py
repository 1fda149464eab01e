"""What a liar might write of a run: the JSON objects in its files, each with one thing wrong."""

WORDS = (None, -1, 1.5, True, "text", [], {}, [1], {"a": 1}, 2**70)


def _all_but(*right):
    """`WORDS` without those that would be right; True is 1 to Python, not to us."""
    return [word for word in WORDS if not any(type(word) is type(r) and word == r for r in right)]


# By path within the JSON object of a state file.
STATE = {
    ("run",): WORDS,
    ("run", "rows"): [*WORDS, 0, 5, 7, 10**9],
    ("run", "thin"): [*WORDS, 3],
    ("run", "first_step"): [*WORDS, 1],
    ("run", "identity"): [*WORDS, {"data": 3}, {"data": "0"}, {"data": None}],
    ("run", "seconds"): _all_but(-1, 1.5, 2**70),
    ("run", "compile_seconds"): _all_but(-1, 1.5, 2**70),
    ("segments",): [*WORDS, 0, 4, 7, 2**61],
    ("last",): [*WORDS, ["00" * 32], ["../../etc/passwd"], [None], [[]]],
    ("parts",): [*_all_but([]), ["00" * 32], ["not hexadecimal"], "ab"],
    ("ranges",): [*_all_but([]), [[0]], [[2, 1]], [[0, 1.5]], [["a", "b"]], [[0, 2**70]]],
    ("split",): [None, 1, "text", {}, [1], [None], [["at"]]],
}
DRAWS = {
    ("previous",): [*WORDS, ["00" * 32], [[]]],
    ("ranges",): [None, 1, "text", [[0]], [[0, 2**70]]],
    ("split",): [None, 1, "text", {}, [1]],
}

# By path within the JSON object of the file with the arguments of `sample`.
_MODELS = [
    ["os", "system"], ["subprocess", "call"], ["shutil", "rmtree"], ["builtins", "exec"],
    ["builtins", "eval"], ["importlib", "import_module"], ["pickle", "loads"], ["sys", "exit"],
    ["runpy", "run_path"], ["os.path", "exists"], ["os", "path.exists"], ["posix", "_exit"],
    ["webbrowser", "open"], ["antigravity", "f"], ["nowhere", "f"], ["", ""],
    ["numpy", "savetxt"], ["jax", "vmap"], ["shoal.inference.hosts", "_end"],
    ["jax.numpy", "save"], ["jax", "numpy"],
    ["numpy", "load"], ["shoal", "inference"], ["shoal.inference", "plot"], ["__main__", "__doc__"],
    ["shoal.inference.checkpoint", "__dict__"], ["shoal.inference.checkpoint", "Contents"],
    "os.system", ["os"], ["os", "system", "true"], [["os"], "system"], [1, 2], [None, None], {}, 5,
]  # fmt: skip
_TREES = [
    1, "text", [], {}, {"array": 99}, {"array": -1}, {"array": 0.0}, {"array": True},
    {"array": "0"}, {"value": "text"}, {"value": [1]}, {"unknown": 0}, {"list": "ab"},
    {"list": {"array": 0}}, {"dict": [1]}, {"array": 0, "value": 1}, {"tuple": None},
]  # fmt: skip


def _nested(depth):
    tree = {"value": 1}
    for _ in range(depth):
        tree = {"list": [tree]}
    return tree


_COUNTS = [None, -1, 1.5, True, "4", [4], {}, 2**40, float("nan")]
RECIPE = {
    ("options",): [None, 1, "text", [], {}, {"num_chains": 4}],
    ("options", "num_chains"): [*_COUNTS, 0, 3, 5],
    ("options", "num_warmup"): _COUNTS,
    ("options", "num_samples"): [*_COUNTS, 0],
    ("options", "thin"): [*_COUNTS, 0],
    ("options", "tune_metric"): ["full", 1, [], {}, True],
    ("options", "target_acceptance"): [0.0, 1.0, -0.5, 2.0, float("nan"), "0.8", True, [0.8], {}],
    ("options", "unknown"): [1],
    ("positions",): [*_TREES, _nested(400), {"value": 1.5}, {"value": None}, {"list": []}],
    ("model",): _MODELS,
    ("arguments",): [
        *_TREES, _nested(400), {"list": []}, {"list": [{"list": []}]},
        {"list": [{"list": [{"value": "rm -rf /"}]}, {"dict": {}}]},
        {"list": [{"dict": {}}, {"list": []}]},
    ],
    ("sampler",): [
        1, "name", [], {}, {"name": "os.system"}, {"name": "hmcmc"}, {"name": 3}, {"name": ["ula"]},
        {"name": None}, {"factory": "__doc__", "leaves": []}, {"factory": "Sampler", "leaves": []},
        {"factory": "os", "leaves": []}, {"factory": 3, "leaves": []}, {"factory": ["ula"]},
        {"factory": "ula"}, {"factory": "ula", "leaves": []}, {"factory": "ula", "leaves": "ab"},
        {"factory": "ula", "leaves": [{"value": 1.0}] * 3},
        {"factory": "ula", "leaves": [{"value": 1.0}, {"value": -0.1}]},
        {"factory": "ula", "leaves": [{"value": 1.0}, {"value": float("nan")}]},
        {"factory": "ula", "leaves": [{"value": 1.0}, {"value": 1}]},
        {"factory": "ula", "leaves": [{"value": 1.0}, {"value": "0.1"}]},
    ],
    ("is_numpyro",): [None, 0, 1, "", "yes", []],
}  # fmt: skip


def cases(table):
    """Return ``(name, path, value)`` for every entry of a table."""
    return [
        (f"{'.'.join(path)} = {str(value)[:60]}", path, value)
        for path, values in table.items()
        for value in values
    ]


def changed(meta, path, value):
    """Return a JSON object with one entry replaced."""
    name, *rest = path
    return {**meta, name: changed(meta[name], rest, value) if rest else value}
