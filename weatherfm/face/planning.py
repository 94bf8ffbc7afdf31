"""What a training will take, and whether everything fits together, from Python."""

from __future__ import annotations

from weatherfm.errors import InputError
from weatherfm.face.arguments import count
from weatherfm.face.runs import Override, RunLike, read_run
from weatherfm.training.check import Finding, check_run
from weatherfm.training.plan.machine import Machine, Training
from weatherfm.training.plan.make_plan import Plan, make_plan, plan_domain

_MOST_JOBS = 1024


def plan(
    config: RunLike,
    *overrides: Override,
    devices: int,
    memory: float,
    tflops: float = Machine.tflops,
    devices_per_node: int = Machine.devices_per_node,
    node_bandwidth: float = Machine.node_bandwidth,
    network_bandwidth: float = Machine.network_bandwidth,
    spare: float = Machine.spare,
    samples: float | None = None,
    price_per_gpu_hour: float | None = None,
    watts: float | None = None,
    grid: str | None = None,
    jobs: int | None = 1,
) -> Plan:
    """What every layout of some devices holds, sends and computes, before anything is queued.

        plan = weatherfm.plan("my_run.yaml", devices=8, memory=80)
        plan.recommended.choice.layout, plan.recommended.count.peak  # bytes

    One rank of each layout is simulated on this machine, whatever their number. Times compare layouts, at rates of
    nodes of eight H100 if not told others; they promise nothing.

    Args:
        config: path of the run's YAML file, a dict, or settings of `weatherfm.read_run`. Of its section `parallel`
            nothing is asked; training.batch_size stays the batch over all devices.
        overrides: settings to change, each as "section.key=value" or {"section.key": value}.
        devices: how many there are.
        memory: GB (1e9 bytes) of each.
        tflops: tera-operations a second of a device in matrix products, as reached in training.
        devices_per_node: devices that the faster network joins.
        node_bandwidth: GB a second that a device sends inside a node.
        network_bandwidth: GB a second that a device sends between nodes.
        spare: share of the memory left for what is not counted.
        samples: how many the whole training sees; without it, those of the run's own steps.
        price_per_gpu_hour: of one device, in any currency: for money.
        watts: that one device draws: for energy.
        grid: latitudes x longitudes, as "128x256", where the store is not prepared yet.
        jobs: processes that simulate; None: one a core. With more than one, a script that calls this needs
            `if __name__ == "__main__":`.

    Returns:
        All `candidates`, and the `recommended` one; `weatherfm.training.plan.plan_as_text.to_text` writes it out.

    Raises:
        InputError: wrong settings, a number that cannot be, or no layout that fits.
    """
    run, jobs = read_run(config, *overrides), count(jobs, "jobs")
    if jobs is not None and jobs > _MOST_JOBS:
        raise InputError(f"jobs {jobs} are more processes than machines have cores; give {_MOST_JOBS} at most")
    machine = Machine(devices, memory, tflops, devices_per_node, node_bandwidth, network_bandwidth, spare)
    return make_plan(run, plan_domain(run, grid), machine, Training(samples, price_per_gpu_hour, watts), jobs)


def check(config: RunLike, *overrides: Override, devices: int | None = None) -> list[Finding]:
    """Check that store, model, layout, training, forecast and baselines of a run fit together, computing nothing.

        findings = weatherfm.check("my_run.yaml")
        all(finding.ok for finding in findings)

    Args:
        config: path of the run's YAML file, a dict, or settings of `weatherfm.read_run`.
        overrides: settings to change, each as "section.key=value" or {"section.key": value}.
        devices: how many it is to be trained on; without it, as many as its section `parallel` asks for.

    Returns:
        One finding a link: `link`, `ok` and `text`; `str` makes a line of it. What does not fit is a finding, too.

    Raises:
        InputError: settings that are wrong by themselves.
    """
    return check_run(read_run(config, *overrides), devices)
