"""The plan: every piece of work once, under a name that edits of params.yaml do not move."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline import registry
from pipeline.config.experiment import Experiment, load
from pipeline.errors import UserError
from pipeline.plan import dvc_yaml
from pipeline.plan.build import build, methods
from pipeline.plan.declared import declared
from pipeline.plan.dependencies import closure
from pipeline.plan.methods import imp
from pipeline.plan.plan import Plan
from pipeline.plan.planner import Planner
from pipeline.report.labels import Look, label, looks

ROOT = Path(__file__).parent.parent
ALL = ["imp", "imp_mx", "imp_reprune", "sms"]
FAMILY = [
    "imp_align",
    "imp_caa",
    "imp_cia",
    "imp_phases",
    "imp_swa",
    "lottery_pools",
    "rewind",
    "sms_swa",
    "swamp",
    *ALL,
]


def plan(**changes: object) -> Plan:
    """Plan the default experiment with ``changes``."""
    own = load(ROOT / "params.yaml").model_dump() | {"recipe": "digits"} | changes
    return build(Experiment.model_validate(own))


def kinds(of: Plan) -> dict[str, int]:
    """Count the stages of each kind."""
    count: dict[str, int] = {}
    for node in of.nodes.values():
        count[node.script] = count.get(node.script, 0) + 1
    return count


def test_shared_work_is_one_stage():
    """Phase 1 trains m candidates and one IMP_mx; later phases 2 m for SMS, m for IMP, 1."""
    count = kinds(plan(m=3, phases=3, methods=ALL, seeds=[0]))
    assert count["pretrain"] == count["prepare"] == 1
    assert count["retrain"] == (3 + 1) + 2 * (2 * 3 + 3 + 1)
    assert count["prune"] == 1 + 2 * (2 + 3 + 1)  # the first is everybody's
    assert count["merge"] == 2 * 3
    assert count["reprune"] == 1


def test_imp_is_run_0_of_imp_reprune_and_candidate_0_of_every_soup():
    of = plan(methods=ALL)
    rows = {(row.method, row.phase): row for row in of.rows}
    assert rows["imp", 1].model == "s0-p1-c0"
    assert rows["sms_uniform", 1].candidates == rows["sms_greedy", 1].candidates
    assert rows["sms_uniform", 1].candidates[0] == "s0-p1-c0"
    assert rows["imp_reprune", 3].candidates[0] == rows["imp", 3].model


def test_raising_m_keeps_every_stage_of_the_first_phase():
    three, five = plan(m=3), plan(m=5)
    first = {n for n in three.nodes if "-p1-" in n and "imp_mx" not in n and "sms" not in n}
    assert {"s0-p1-prune", "s0-p1-c0", "s0-p1-c2"} <= first
    for name in first:
        assert dvc_yaml.command(three.nodes[name]) == dvc_yaml.command(five.nodes[name])


def test_seeds_share_the_data_and_nothing_that_is_trained():
    of = plan(seeds=[0, 1])
    assert kinds(of)["prepare"] == 1
    assert kinds(of)["pretrain"] == 2
    assert plan(seeds=[0]).nodes.keys() < of.nodes.keys()


def test_candidates_differ_in_what_varies_and_nothing_else():
    by_seed = plan(m=3).nodes
    assert len({by_seed[f"s0-p1-c{j}"].arguments["seed"] for j in range(3)}) == 3
    own = load(ROOT / "params.yaml").retrain.model_dump()
    varied = plan(m=3, retrain=own | {"vary": "learning_rate", "values": [0.05, 0.2]}).nodes
    settings = [varied[f"s0-p1-c{j}"].arguments for j in range(3)]
    assert len({flags["seed"] for flags in settings}) == 1
    assert [flags.get("learning_rate") for flags in settings] == [None, 0.05, 0.2]
    assert [flags["schedule"] for flags in settings] == ["ALLR", "LLR", "LLR"]


@given(
    m=st.integers(1, 6),
    phases=st.integers(1, 4),
    methods=st.sets(st.sampled_from(FAMILY), min_size=1),
    merge=st.sets(st.sampled_from(registry.names("soup")), min_size=1),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
def test_laws_of_every_plan(m, phases, methods, merge, seeds):
    of = plan(m=m, phases=phases, methods=sorted(methods), merge=sorted(merge), seeds=seeds)
    seen: set[str] = set()
    for node in of.nodes.values():
        assert set(node.inputs) <= seen, "inputs come first, so there is no cycle"
        seen.add(node.name)
        assert set(node.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
    work = {" ".join(dvc_yaml.command(node)[:-1]) for node in of.nodes.values()}
    assert len(work) == len(of.nodes), "no two stages do the same work"
    used = {name for row in of.rows for name in (row.model, row.evaluate, row.compare)}
    assert used - {None} <= seen
    reached = {name for node in of.nodes.values() for name in node.inputs}
    ends = {n.script for n in of.nodes.values() if n.name not in reached}
    assert ends <= {"evaluate", "compare", "robustness", "prepare"}, "nothing is trained for nobody"


def test_a_merge_is_told_what_its_rule_asks_for_and_watches_that_rule_only():
    of = plan(methods=["sms"], merge=registry.names("soup"), phases=2, seeds=[0])
    asked = {"distilled": {"dense", "seed"}, "learned": {"seed"}}
    asked |= {"model_stock": {"parent"}, "wise": {"parent"}}
    own = {"distilled": ["learned"], "greedy": ["uniform"], "model_stock": ["uniform"]}
    own["repair"] = own["wise"] = ["uniform"]
    for rule in registry.names("soup"):
        node = of.nodes[f"s0-sms_{rule}-p2"]
        given = {"data", "candidates", "rule"} | asked.get(rule, set())
        assert node.arguments.keys() == given
        files = {f"pipeline/soup/{name}.py" for name in ["base", "build", rule, *own.get(rule, [])]}
        assert {f for f in dvc_yaml.dependencies(node) if f.startswith("pipeline/soup/")} == files
    assert of.nodes["s0-sms_wise-p1"].arguments["parent"] == "artifacts/s0-p1-prune"
    assert of.nodes["s0-sms_wise-p2"].arguments["parent"] == "artifacts/s0-sms_wise-p2-prune"
    assert of.nodes["s0-sms_distilled-p2"].arguments["dense"] == "artifacts/s0-dense"
    seeds = {of.nodes[f"s0-sms_learned-p{phase}"].arguments["seed"] for phase in (1, 2)}
    assert len(seeds) == 2


def test_distillation_is_refused_before_anything_runs_where_no_logits_are_kept():
    with pytest.raises(UserError, match="distilled learns from the dense network's logits"):
        plan(task="segmentation", methods=["sms"], merge=["uniform", "distilled"])


def test_the_same_candidates_merged_by_every_rule_need_only_names():
    of = plan(methods=["sms"], merge=["uniform"], phases=1, seeds=[0])
    before = set(of.nodes)
    work = Planner(of, 0)
    work.set_method("sms_uniform")
    candidates = [f"s0-p1-c{j}" for j in range(3)]
    for rule in registry.names("soup"):
        work.merge(candidates, 1, rule, name=f"p1-by_{rule}")
    others = {f"s0-p1-by_{rule}" for rule in registry.names("soup")} - {"s0-p1-by_uniform"}
    assert set(of.nodes) - before == others, "the method's own soup is found again"


def test_a_rule_that_needs_the_parent_is_refused_where_there_is_none():
    of = plan(methods=["sms"], merge=["uniform"], phases=1, seeds=[0])
    with pytest.raises(UserError, match="wise starts from the candidates' pruned parent"):
        Planner(of, 0).merge(["s0-dense"], 1, "wise")


@given(order=st.permutations(ALL))
def test_the_order_of_methods_moves_nothing(order):
    assert dvc_yaml.render(plan(methods=order)) == dvc_yaml.render(plan(methods=ALL))


def test_a_method_alone_has_the_stages_it_has_among_others():
    whole = plan(methods=FAMILY).nodes
    for method in FAMILY:
        for name, node in plan(methods=[method]).nodes.items():
            assert dvc_yaml.command(node) == dvc_yaml.command(whole[name])


@pytest.mark.parametrize("path", ["my images/a: b", "a/#b", "1/2", "~", "é/x", "x" * 99 + " y/z"])
def test_the_graph_quotes_paths_as_yaml_does(path):
    of = plan(methods=["imp"])
    of.nodes["data"].files = (path,)
    text = dvc_yaml.render(of)
    assert path in yaml.safe_load(text)["stages"]["data"]["deps"]
    body = {
        "wdir": "..",
        "deps": dvc_yaml.dependencies(of.nodes["data"]),
        "outs": ["artifacts/data"],
    }
    expected = yaml.safe_dump(body, sort_keys=False).splitlines()
    assert "".join(f"    {line}\n" for line in expected) in text


def test_the_graph_is_yaml_that_says_what_the_plan_says():
    of = plan()
    stages = yaml.safe_load(dvc_yaml.render(of))["stages"]
    assert stages.keys() == of.nodes.keys()
    for name, stage in stages.items():
        assert stage["cmd"] == " ".join(dvc_yaml.command(of.nodes[name]))
        assert stage["outs"] == [f"artifacts/{name}"]
        assert {f"artifacts/{parent}" for parent in of.nodes[name].inputs} <= set(stage["deps"])


def test_the_committed_graph_is_the_one_of_the_committed_params():
    committed = (ROOT / "stages" / "dvc.yaml").read_text()
    assert committed == dvc_yaml.render(build(load(ROOT / "params.yaml")))


SCRIPTS = sorted(
    f.stem for f in (ROOT / "stages").glob("*.py") if f.stem not in {"__init__", "all"}
)


IMPORTED = """
import importlib, json, os, pathlib, sys
import torch  # once for all: the forks below need not import it again
here = pathlib.Path.cwd()
for script in sys.argv[1:]:
    if not os.fork():
        importlib.import_module(f"stages.{script}")
        loaded = [pathlib.Path(vars(m).get("__file__") or "/") for m in list(sys.modules.values())]
        files = [file.relative_to(here) for file in loaded if file.is_relative_to(here)]
        files = [str(f) for f in files if f.stat().st_size and f.parts[0] != ".venv"]
        print(json.dumps([script, sorted(files)]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """Return the files of this project that a process has imported once it has a script."""
    run = subprocess.run(
        [sys.executable, "-c", IMPORTED, *SCRIPTS],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(map(json.loads, run.stdout.splitlines()))


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_closure_is_what_python_imports(script, imported):
    """An independent answer: what is in sys.modules once the script and all it names is loaded."""
    assert closure(f"stages.{script}") == imported[script]


def written(root: Path, files: dict[str, str]) -> Path:
    """Write ``files``, path to text, under ``root``."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


LOCAL = {
    "stages/__init__.py": "",
    "stages/work.py": "import numpy, json\nfrom kit import tools\nfrom pipeline.a import b\n",
    "pipeline/__init__.py": "VERSION = 1\n",
    "pipeline/a/__init__.py": "",
    "pipeline/a/b.py": "from . import c\nfrom .d import value\nfrom ..top import f\n",
    "pipeline/a/c.py": "def late():\n    from . import e\n",
    "pipeline/a/d.py": "value = 1\n",
    "pipeline/a/e.py": "value = 1\n",
    "pipeline/a/unused.py": "value = 1\n",
    "pipeline/top.py": "import helpers\nf = 1\n",
    "helpers.py": "import kit.deep.far as far\n",
    "kit/__init__.py": "from .inner import x\n",
    "kit/inner.py": "x = 1\n",
    "kit/tools.py": "x = 1\n",
    "kit/unused.py": "x = 1\n",
    "kit/deep/far.py": "import pipeline\n",
    "mine/net.py": "import layers\nfrom pipeline.a import d\n",
    "mine/layers.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import helpers\n",
}


def test_the_closure_follows_relative_imports_and_local_modules(tmp_path):
    root = written(tmp_path, LOCAL)
    left_out = {"pipeline/a/unused.py", "kit/unused.py", "mine/net.py", "mine/layers.py"}
    expected = {path for path, text in LOCAL.items() if text} - left_out
    assert set(closure("stages.work", root=root)) == expected
    run = "import stages.work, pipeline.a.c, sys; pipeline.a.c.late(); print(*sys.modules)"
    command = [sys.executable, "-c", run]
    loaded = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    for path in expected:
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        assert name in loaded.stdout.split(), "Python imports it too"


def test_the_closure_of_a_file_has_what_lies_beside_it(tmp_path):
    root = written(tmp_path / "root", LOCAL)
    inside = ["mine/layers.py", "mine/net.py", "pipeline/__init__.py", "pipeline/a/d.py"]
    assert closure("mine/net.py", root=root) == inside
    other = written(tmp_path / "other", {"net.py": "from near import x\n", "near.py": "x = 1\n"})
    assert closure(str(other / "net.py"), root=root) == ["../other/near.py", "../other/net.py"]


def test_a_file_that_is_no_python_is_named(tmp_path):
    root = written(tmp_path, {"stages/work.py": "import helpers\n", "helpers.py": "def (:\n"})
    with pytest.raises(UserError, match=r"helpers\.py is not valid Python"):
        closure("stages.work", root=root)


def test_training_depends_on_no_pruning_merging_or_reporting():
    rooms = ("pipeline/prune", "pipeline/soup", "pipeline/report", "pipeline/evaluate")
    # Pretraining refuses a network that could not be pruned afterwards, by that one definition.
    definition = {"pretrain": ["pipeline/prune/prunable.py"], "retrain": []}
    for script, allowed in definition.items():
        files = [file for file in closure(f"stages.{script}") if file.startswith(rooms)]
        assert files == allowed


def test_filters_are_pruned_by_a_flag_and_removed_at_the_end():
    own = load(ROOT / "params.yaml").prune.model_dump()
    of = plan(methods=ALL, phases=2, seeds=[0], prune=own | {"structure": "filters"})
    pruning = [node for node in of.nodes.values() if node.script in {"prune", "reprune"}]
    assert pruning
    for node in pruning:
        assert node.arguments["structure"] == "filters"
        assert not {"criterion", "allocation"} & node.arguments.keys()
        assert not [m for m in node.modules if m.startswith("pipeline.prune")]
    removed = {of.nodes[row.shrink].arguments["model"] for row in of.rows if row.shrink}
    assert removed == {f"artifacts/{row.model}" for row in of.rows if row.phase == 2}
    assert not [node for node in plan().nodes.values() if "structure" in node.arguments]


def test_methods_are_listed_with_a_line_each():
    assert set(methods()) >= set(FAMILY)
    assert all(len(line) > 20 for line in methods().values())


def test_varied_settings_share_what_they_do_not_change():
    of = plan(methods=["sms", "imp"], merge=["uniform"])
    before = set(of.nodes)
    same = Planner(of, 0).with_settings("epochs10", {"retrain.epochs": of.params.retrain.epochs})
    imp.plan(same)
    assert set(of.nodes) == before, "settings that change nothing add nothing"
    imp.plan(Planner(of, 0).with_settings("epochs5", {"retrain.epochs": 5}))
    added = set(of.nodes) - before
    assert {name for name in added if not name.startswith("s0-epochs5-")} == set()
    assert "s0-epochs5-p1-c0" in added
    assert "s0-epochs5-p1-prune" not in added, "phase 1 prunes the same dense network"


def test_more_phases_are_imp_under_a_longer_ladder_reported_in_the_last_row():
    of = plan(m=3, phases=2, target_sparsity=0.9, methods=["imp", "imp_phases"])
    rows = [row for row in of.rows if row.method == "imp_phases"]
    assert [(row.phase, row.sparsity, row.model) for row in rows] == [
        (2, 0.9, "s0-phases6-imp-p6-c0")
    ]
    chain, node = [], of.nodes["s0-phases6-imp-p6-c0"]
    while node.script != "pretrain":
        chain.append(node.arguments.get("sparsity", node.arguments.get("epochs")))
        node = of.nodes[node.arguments["parent"].removeprefix("artifacts/")]
    epochs, ladder = chain[::2], chain[:0:-2]
    assert epochs == [of.nodes["s0-p1-c0"].arguments["epochs"]] * 6
    assert [1 - s for s in ladder] == pytest.approx([0.1 ** (phase / 6) for phase in range(1, 7)])


def test_more_phases_with_one_candidate_are_plain_imp():
    of = plan(m=1, methods=["imp", "imp_phases"])
    last = {row.method: row.model for row in of.rows if row.phase == 3}
    assert last["imp_phases"] == last["imp"]


def test_the_averages_of_imp_reprune_share_its_runs_and_cia_its_mean():
    of = plan(methods=["imp_reprune", "imp_cia", "imp_caa"])
    rows = {row.method: row for row in of.rows}
    assert rows["imp_cia"].model == rows["imp_reprune"].model == "s0-imp_reprune-p3"
    assert rows["imp_caa"].candidates == rows["imp_reprune"].candidates
    plain, aware = (of.nodes[f"s0-{name}-p3"].arguments for name in ("imp_reprune", "imp_caa"))
    assert aware == plain | {"average": "caa"}


def test_only_a_random_allocation_is_given_a_seed_another_in_each_phase_and_run():
    def seeds(allocation: str) -> list[object]:
        own = {"prune": {"allocation": allocation}}
        nodes = plan(**own, methods=["imp", "imp_reprune"], seeds=[0, 1]).nodes.values()
        return [n.arguments.get("seed") for n in nodes if n.script in {"prune", "reprune"}]

    assert set(seeds("erk")) == {None}
    # Two seeds, three phases; runs 1 and 2 of IMP-RePrune draw anew from the second phase on.
    assert len(set(seeds("random"))) == 2 * (3 + 2 * 2)


def test_what_a_methods_file_declares_is_what_the_report_writes(tmp_path, monkeypatch):
    text = 'LABEL = "Mine, {m} times"\nLOOK = ("sky", "o", "-", 2.0)\nBASELINES = ("imp",)\n'
    (tmp_path / "mine.py").write_text(text)
    methods_of = import_module("pipeline.plan.methods")
    monkeypatch.setattr(methods_of, "__path__", [*methods_of.__path__, str(tmp_path)])
    known = registry.names
    monkeypatch.setattr(registry, "names", lambda folder: [*known(folder), "mine"])
    assert label("mine", 4) == "Mine, 4 times"
    assert looks(["mine"])["mine"] == Look("#56B4E9", "o", "-", 2.0)
    assert declared("mine").baselines == ("imp",)
    assert label("mine_too", 4) == "mine too", "not a variant of mine, which has none"
    assert label("sms_model_stock", 3) == "SMS Model Stock"
    assert label("sms_new_rule", 3) == "SMS new rule"
    assert declared("sms_greedy").paper == {"prune_after_training": "SMS greedy"}
    assert declared("sms_wise").paper == {}
    assert label("imp_mx", 3) == "IMP 3\N{MULTIPLICATION SIGN} longer"
