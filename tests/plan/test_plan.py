"""The contents of a plan: names of slices, collectives read from a program, memory, time, budgets."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import jax
import pytest

from albert_jax import cli, configfile
from albert_jax.bench import measured_budget, step
from albert_jax.commands import plan as command
from albert_jax.config import ParallelConfig
from albert_jax.errors import ConfigError
from albert_jax.model import attention, flops
from albert_jax.model.init import num_parameters
from albert_jax.parallel import mesh
from albert_jax.plan import budget, compile, estimate, hlo, plan, slices


@pytest.mark.parametrize(
    ("name", "chips", "hosts", "topology"),
    [
        ("v5p-128", 64, 16, (4, 4, 4)),
        ("v5e-256", 256, 64, (16, 16)),
        ("v5litepod-8", 8, 1, (2, 4)),
        ("v6e-64", 64, 16, (8, 8)),
        ("v4-8", 4, 1, (2, 2, 1)),
        ("7x-4x4x4", 64, 16, (4, 4, 4)),
        ("v3-8", 4, 1, (2, 2)),
        ("h200-16", 16, 2, (2, 8)),
    ],
)
def test_slices_are_what_google_calls_them(name, chips, hosts, topology):
    found = slices.find(name)
    assert (found.chips, found.hosts, found.topology) == (chips, hosts, topology)
    assert found.devices == chips * found.chip.devices
    assert all(slices.find(known).name == known for known in slices.table())


@pytest.mark.parametrize(
    ("name", "near"), [("v5e-100", "v5e-128"), ("v5p-3", "v5p-8"), ("nothing", "v5e-256")]
)
def test_a_slice_that_does_not_exist_has_nearest_names(name, near):
    with pytest.raises(ConfigError, match=f"--slice {name}: no such slice; there are .*{near}"):
        slices.find(name)


PROGRAM = """\
HloModule step
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(f32[] %a, f32[] %b)
}
%inner (p: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %g = (bf16[2,8]{1,0}, bf16[4,8]{1,0}) all-gather-start(bf16[2,8] %x), dimensions={0}
}
%test (p: (s32[], bf16[4,8])) -> pred[] {
}
ENTRY %main (p: f32[10]) -> f32[10] {
  %w = (s32[], bf16[4,8]) while((s32[], bf16[4,8]) %t), condition=%test, body=%inner
  %r = (f32[10]{0}, /*index=1*/f32[2,3]{1,0}) all-reduce(f32[10] %p, f32[2,3] %q), to_apply=%add
  %s = f32[5]{0} reduce-scatter(f32[10] %p), replica_groups={{0,1}}, to_apply=%add
}
"""


def test_cycles_count_the_body_of_a_loop_as_often_as_it_runs():
    text = PROGRAM.replace("dimensions={0}", 'x, backend_config={"estimated_cycles":"10"}')
    text = text.replace("-> pred[] {", "-> pred[] {\n  %c = s32[]{:T(128)} constant(12)")
    text = text.replace("%s = f32[5]{0}", '%f = f32[5]{0} fusion(f32[10] %p), calls=%inner, '
                        'backend_config={"estimated_cycles":"7"}\n  %s = f32[5]{0}')  # fmt: skip
    assert hlo.cycles(text) == 12 * 10 + 7
    assert hlo.cycles(PROGRAM) == 0


def test_collectives_are_read_with_kind_type_bytes_and_place():
    found = {one.kind: one for one in hlo.collectives(PROGRAM)}
    assert found["all-reduce"] == hlo.Collective("all-reduce", ("f32",), 64, False)
    assert found["all-gather"] == hlo.Collective("all-gather", ("bf16",), 64, True)
    assert found["reduce-scatter"] == hlo.Collective("reduce-scatter", ("f32",), 40, False)
    loop = PROGRAM.replace("-> pred[] {", "-> pred[] {\n  %c = s32[]{:T(128)} constant(12)")
    assert {one.kind: one.times for one in hlo.collectives(loop)} == {
        "all-gather": 12, "all-reduce": 1, "reduce-scatter": 1,
    }  # fmt: skip
    piece = '  %g2 = f32[8] all-gather(f32[2] %x), frontend_attributes={chain_id="3"}\n'
    assert len(hlo.collectives(PROGRAM + "%more (p: f32[]) -> f32[] {\n" + piece * 3)) == 4


def test_gpus_are_planned_by_formula_and_a_plan_that_does_not_fit_says_what_would(capsys):
    config = configfile.load("base-v2")
    where = slices.find("h200-8")
    told = plan.plan(config, where, price=3.0)
    told["nearest"] = plan.nearest_that_fits(config, where)[0]
    lines = command.table(told).splitlines()
    assert lines[0].startswith("h200-8: 8 chips of h200, 1 host")
    last = command.verdict(told)
    assert not told["fits"] and last.startswith("does not fit: phase 0 needs ")
    assert last.endswith('it fits with compute.remat = "dots"')
    compute = dataclasses.replace(config.compute, remat="dots")
    told = plan.plan(dataclasses.replace(config, compute=compute), slices.find("h200-8"))
    assert command.verdict(told).startswith("fits: ")
    json.dumps(told)


def test_time_is_flops_over_rate():
    config, where = configfile.load("base-v2"), slices.find("h200-8")
    limits = estimate.bound(config, config.phases[0], where, None)
    assert limits.compute == pytest.approx(1.196e15 / (8 * 989e12), rel=1e-3)
    assert limits.step == max(limits.compute, limits.memory, limits.interconnect)
    assert limits.expected(0.5) >= 2 * limits.compute


def test_a_budget_cuts_all_phases_alike_and_the_warm_up_too():
    config = configfile.load("tiny")
    each = [0.1] * len(config.phases)
    bought = budget.with_steps_for(config, each, 0.1 * config.steps / 2 / (1 - budget.RESERVE))
    assert bought.steps == pytest.approx(config.steps / 2, abs=len(each))
    assert bought.optimizer.warmup_steps == pytest.approx(config.optimizer.warmup_steps / 2, abs=1)
    with pytest.raises(ConfigError, match="the budget buys .* steps"):
        budget.with_steps_for(config, each, 0.2)


@pytest.mark.parametrize(
    ("tokens", "devices", "name", "rows"),
    [
        (1e9, 1, "base-one-chip", 32),
        (13e9, 1, "base-one-chip", 512),
        (13e9, 256, "base-one-chip", 512),
        (20e9, 8, "base-one-chip", 1024),
        (66e9, 8, "large-eight-chips", 1024),
        (262e9, 256, "xxlarge-v2", 4096),
        (1e13, 256, "xxlarge-v2", 4096),
    ],
)
def test_a_budget_chooses_preset_rows_and_rate(tokens, devices, name, rows):
    found, config = budget.choose(
        1.0, devices, lambda _: tokens / (1 - budget.RESERVE), budget.ACCELERATOR_PRESETS
    )
    assert found == name
    assert {phase.batch_size for phase in config.phases} == {rows}
    assert config.optimizer.learning_rate == pytest.approx(0.00176 * (rows / 4096) ** 0.5, rel=1e-2)
    for phase in config.phases:
        assert phase.batch_size % (devices * phase.gradient_accumulation_steps) == 0
    config.validate()


def test_a_machine_at_hand_is_measured_before_it_is_believed(monkeypatch):
    """The limit promises base; measured, it is a thousandth of that, and medium is left."""
    measured = []

    def measure(config):
        measured.append(config.model.hidden_size)
        return [phase.batch_size * phase.sequence_length / 1e4 for phase in config.phases]

    base = configfile.load("base-one-chip")
    work = sum(p.steps * flops.per_step(base.model, p) for p in base.phases)
    per_token = work / (base.steps * budget.tokens_per_step(base))
    monkeypatch.setattr(step, "matmul_rate", lambda dtype: 4e6 * per_token / jax.device_count())
    monkeypatch.setattr(step, "seconds_per_step", measure)
    name, config, seconds = measured_budget.choose(1.0)
    assert name == "medium"
    assert measured == [c.model.hidden_size for c in (base, configfile.load("medium"))]
    bought = budget.with_steps_for(config, seconds, 3600.0)
    assert bought.steps * budget.tokens_per_step(bought) == pytest.approx(
        3600 * 1e4 * (1 - budget.RESERVE), rel=0.01
    )
    assert [p.batch_size for p in bought.phases] == [p.batch_size for p in config.phases]


def test_the_state_of_the_run_is_what_is_planned():
    """Parameters and two moments, and a third copy where an average is kept; sharded by fsdp."""
    config, where = configfile.load("base-v2"), slices.find("h200-8")
    parameters = num_parameters(config.model)
    state = estimate.state_bytes(config, where)
    assert state == pytest.approx(12 * parameters, rel=1e-6)
    averaged = dataclasses.replace(config.optimizer, ema_decay=0.99)
    averaged = dataclasses.replace(config, optimizer=averaged)
    assert estimate.state_bytes(averaged, where) == pytest.approx(16 * parameters, rel=1e-6)
    sharded = dataclasses.replace(config, parallel=ParallelConfig(fsdp=8))
    assert estimate.state_bytes(sharded, where) == pytest.approx(state / 8, rel=0.01)
    times = [estimate.bound(c, c.phases[0], where, None).memory for c in (config, averaged)]
    assert times[1] - times[0] == pytest.approx(8 * parameters / where.chip.bandwidth, rel=1e-3)


def test_rows_that_do_not_divide_are_refused():
    tiny = configfile.load("tiny")
    rows = tiny.phases[0].batch_size
    message = f"phases.0.batch_size {rows} is not divisible by 64 shards"
    with pytest.raises(ConfigError, match=message):
        plan.plan(tiny, slices.find("h200-64"))


def test_configs_for_fine_tuning_are_refused(capsys):
    for words in (["plan", "--slice", "h100-8"], ["bench"]):
        assert cli.main([*words, "--config", "finetune/sst-2"]) == 2
        assert "finetune/sst-2 is a config of fine-tuning" in capsys.readouterr().err


def test_a_phase_of_several_depths_needs_the_memory_of_the_deepest():
    config, where = configfile.load("base-v2"), slices.find("h100-8")

    def memory(depths: tuple[int, ...]) -> float:
        phase = dataclasses.replace(config.phases[0], depths=depths)
        changed = dataclasses.replace(config, phases=(phase,))
        return plan.compile_steps(changed, where)[0].memory

    assert memory((6, 12)) == memory(()) < memory((12, 24)) == memory((24,))


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs libtpu: pip install -e '\.\[tpu-plan\]'"):
        compile.topology(slices.find("v5e-4"))


def test_the_compilers_refusal_is_read():
    text = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 39.90G of 15.75G hbm."
    assert compile.needed_memory(text) == pytest.approx(39.9 * 2**30)
    assert compile.needed_memory("INTERNAL: other") is None


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu (extra tpu-plan)"
)
def test_axes_of_the_mesh_may_be_parts_of_those_of_the_torus():
    for name, axes in (
        ("v5e-16", {"fsdp": 2}), ("v5e-16", {"fsdp": 8}), ("v5e-256", {"fsdp": 8}),
        ("v5e-64", {"fsdp": 4, "tensor": 2}), ("v5p-128", {"tensor": 2}),
    ):  # fmt: skip
        devices = compile.topology(slices.find(name)).devices
        made = mesh.make_mesh(ParallelConfig(**axes), devices)
        assert {axis: made.shape[axis] for axis in axes} == axes
        assert sorted(d.id for d in made.devices.flat) == sorted(d.id for d in devices)
    with pytest.raises(ConfigError, match="devices belong to 1 slice: set it to 1"):
        mesh.make_mesh(ParallelConfig(slice=2), devices)


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu (extra tpu-plan)"
)
def test_old_chips_get_the_backend_that_compiles_on_them():
    config = configfile.load("base-v2")
    for name, backend in (
        ("v2-8", "xla"),
        ("v3-8", "xla"),
        ("v4-8", "splash"),
        ("v5e-4", "splash"),
    ):
        device = compile.topology(slices.find(name)).devices[0]
        assert attention.choose(config, device).name == backend
