"""Wrong inputs of every verb and setting: each is refused in one short message that names it, at once.

None may be a traceback, a fault of weatherfm, a hang, or silence (status 0 although something that was given was not
used). `tests/command/test_wrong_inputs.py` runs them; `python tests/wrong_inputs.py` runs them and counts the faults.

A line is a command and, behind an arrow, what the message must hold; several with &. Of settings the command is
`check run.yaml`, of those of sources `prepare run.yaml --dry-run`, and ` + ` stands between several.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent / "fixtures"))

from finished_run import LONG, finish_run

from weatherfm.cli import run_command

SECONDS = 20
"""That a refusal may take; importing takes most of it."""
LONGEST, LINES = 900, 14
"""Characters and lines of a message, at most: of `check`, with its other findings."""

MODEL = """
model=3 -> model
model=[1] -> model
model= -> model
model.depth=0 -> model.depth
model.depth=-1 -> model.depth
model.depth=1000000 -> model.depth
model.depth=2.5 -> model.depth
model.depth=six -> model.depth
model.depth=.nan -> model.depth
model.depth=.inf -> model.depth
model.depth=[1] -> model.depth
model.depth= -> model.depth
model.depth=true -> model.depth
model.width=0 -> model.width
model.width=10000000 -> model.width
model.width=30 + model.heads=4 -> heads 4
model.width=34 + model.heads=2 -> width 34 & 4
model.width=-8 -> model.width
model.heads=0 -> model.heads
model.heads=1000000000 -> heads
model.heads=3 -> heads 3
model.mlp_ratio=0 -> model.mlp_ratio
model.mlp_ratio=.nan -> model.mlp_ratio
model.mlp_ratio=.inf -> model.mlp_ratio
model.mlp_ratio=1e9 -> model.mlp_ratio
model.mlp_ratio=1e-9 -> mlp_ratio
model.patch_size=0 -> patch_size
model.patch_size=[1,2,3] -> patch_size
model.patch_size=[] -> patch_size
model.patch_size=1000000 -> patch_size
model.patch_size=big -> patch_size
model.decoder_fields=-1 -> model.decoder_fields
model.decoder_fields=1000000 -> model.decoder_fields
model.truncation=0 -> model.truncation
model.truncation=1000000 -> truncation
model.conditioning=film -> model.conditioning
model.noise=-1 -> model.noise
model.noise=100000000 + training.loss=crps -> model.noise
model.noise=4 -> training.loss
model.position=here -> model.position
model.dropout=1 -> model.dropout
model.dropout=-.1 -> model.dropout
model.dropout=.nan -> model.dropout
model.drop_path=1.5 -> model.drop_path
model.head_depth=-1 -> model.head_depth
model.head_depth=1000000 -> model.head_depth
model.aggregation=flat -> model.aggregation
model.aggregation.kind=deep -> model.aggregation.kind
model.aggregation.kind=hierarchical -> groups
model.aggregation={kind: hierarchical, groups: 100000} -> groups
model.aggregation={kind: hierarchical, groups: 2, tree: 1000000} -> tree
model.aggregation.groups=2 -> hierarchical
model.aggregation.block_mib=0 -> block_mib
model.aggregation.block_mib=.inf -> block_mib
model.aggregation.block_mib=huge -> block_mib
model.inputs=[] -> model.inputs
model.inputs=[q700] -> q700
model.inputs=[z500, z500] -> z500
model.outputs=[z500, z500] -> z500
model.outputs=[-z500, t850] -> model.outputs
model.outputs=[-z500, -t850, -u10] -> outputs
model.outputs=[''] -> outputs
model.input_times=[] -> input_times
model.input_times=[0h, 0h] -> input_times
model.input_times=[6h] -> input_times
model.input_times=[0h, -100000d] -> input_times
model.input_times=[0h, -7h] -> -7h
model.input_times=0h -> input_times
model.forcings=[moon] -> moon
model.forcings=[latitude, latitude] -> latitude
model.predict=past -> model.predict
model.dpeth=3 -> did you mean model.depth
"""

TRAINING = """
training.steps=0 -> training.steps
training.steps=1e3.5 -> training.steps
training.steps=-5 -> training.steps
training.steps=many -> training.steps
training.batch_size=0 -> training.batch_size
training.batch_size=1000000000 -> training.batch_size
training.accumulate=0 -> training.accumulate
training.accumulate=1000000000000 -> training.accumulate
training.lead_times=[] -> training.lead_times
training.lead_times=[24] -> training.lead_times & 6h
training.lead_times=[0h] -> lead_times
training.lead_times=[-6h] -> lead_times
training.lead_times=[6h, 6h] -> lead_times
training.lead_times=[7h] -> 7h
training.lead_times=[100000d] -> 2400000h
training.lead_times=[1e3h] -> training.lead_times
training.lead_times=soon -> training.lead_times
training.rollout.steps={} -> rollout.steps
training.rollout.steps={5: 1} -> rollout.steps
training.rollout.steps={0: 0} -> rollout.steps
training.rollout.steps={0: 1000000} -> 1000000
training.rollout={steps: {0: 2}, inputs: read} -> inputs
training.loss=l1 -> training.loss
training.loss=crps -> model.noise
training.members=4 -> members
training.loss=crps + model.noise=4 + training.members=1000000 -> training.members
training.crps_alpha=2 -> training.crps_alpha
training.lead_time_weighting=both -> training.lead_time_weighting
training.channel_sampling=0 -> training.channel_sampling
training.channel_sampling=.nan -> training.channel_sampling
training.learning_rate=0 -> training.learning_rate
training.learning_rate=.inf -> training.learning_rate
training.learning_rate=.nan -> training.learning_rate
training.learning_rate=1e-2.3 -> training.learning_rate
training.min_learning_rate=1 -> min_learning_rate
training.min_learning_rate=-1 -> training.min_learning_rate
training.warmup_steps=-1 -> training.warmup_steps
training.warmup_steps=1000000 -> warmup_steps
training.schedule=linear -> training.schedule
training.cooldown_steps=5 -> cooldown_steps
training.schedule=constant_cooldown + training.cooldown_steps=5000 -> cooldown_steps
training.betas=[0.9] -> training.betas
training.betas=[0.9, 1] -> betas
training.betas=[.nan, 0.9] -> betas
training.weight_decay=-1 -> training.weight_decay
training.weight_decay=.inf -> training.weight_decay
training.clip_norm=0 -> training.clip_norm
training.clip_norm=.inf -> training.clip_norm
training.ema_decay=1 -> training.ema_decay
training.ema_decay=.nan -> training.ema_decay
training.channel_weights={q700: 2} -> q700
training.channel_weights={z500: -1} -> z500
training.channel_weights={z500: .inf} -> z500
training.channel_weights={z500: .nan} -> z500
training.channel_weights={z500: 0, t850: 0, u10: 0} -> channel_weights
training.channel_weights=mass -> mass
training.channel_weights=[z500] -> channel_weights
training.precision=float16 -> training.precision
training.device=tpu -> training.device
training.device=cuda:99 -> training.device
training.device='' -> training.device
training.device=meta -> training.device
training.compile=maybe -> training.compile
training.seed=-1 -> training.seed
training.seed=1000000000000000000000000000000 -> training.seed
training.validate_every=0 -> training.validate_every
training.validation_samples=0 -> training.validation_samples
training.early_stopping=0 -> training.early_stopping
training.export=first -> training.export
training.checkpoint_every=0 -> training.checkpoint_every
training.keep_checkpoints=0 -> training.keep_checkpoints
training.log_every=0 -> training.log_every
training.workers=-1 -> training.workers
training.workers=1000000 -> training.workers
training.cache=maybe -> training.cache
training.wandb.mode=loud -> training.wandb.mode
training.wandb=true -> training.wandb
training.start_from.weights=nowhere -> nowhere
training.start_from={weights: ''} -> start_from
training.start_from={weights: text.txt} -> text.txt
training.start_from={weights: empty} -> empty
training.start_from={weights: run/store.zarr} -> store.zarr
training.start_from={weights: run, freeze: [nothing]} -> nothing
training.start_from={weights: run, freeze: [blocks, blocks]} -> blocks
training.start_from={weights: run, layer_decay: .nan} -> layer_decay
training.start_from={weights: run, new_channels: {q700: [z500]}} -> q700
training.start_from={weights: run, lora: {rank: 1000}} -> rank
training.start_from={weights: run, lora: {rank: 2, on: [mlp, mlp]}} -> mlp
training.start_from={weights: run, lora: {rank: 2, alpha: .inf}} -> alpha
training.stpes=3 -> did you mean training.steps
"""

PARALLEL = """
parallel.tp=0 -> parallel.tp
parallel.tp=3 -> tp 3
parallel.tp=100000 -> tp 100000
parallel.dp_shard=0 -> parallel.dp_shard
parallel.dp_replicate=-1 -> parallel.dp_replicate
parallel.dp_replicate=1000000000 -> 1000000000
parallel.channels=some -> parallel.channels
parallel.activation_checkpointing=all -> parallel.activation_checkpointing
parallel.timeout=0 -> parallel.timeout
parallel.timeout=.nan -> parallel.timeout
parallel.timeout=.inf -> parallel.timeout
"""

FORECAST = """
forecast.lead_times=[] -> forecast.lead_times
forecast.lead_times=[12h, 6h] -> lead_times
forecast.lead_times=[6h, 6h] -> lead_times
forecast.lead_times=[7h] -> 7h
forecast.lead_times=6h..1000000d/1h -> range of lead times
forecast.lead_times=12h..6h/6h -> range of lead times
forecast.lead_times=[24h] -> 24h
forecast.lead_times=[1000d] + forecast.mode=rollout + forecast.rollout_step=6h -> lead
forecast.mode=both -> forecast.mode
forecast.mode=rollout + forecast.rollout_step=5h -> rollout_step
forecast.mode=rollout + forecast.rollout_step=0h -> rollout_step
forecast.rollout_step=6h -> rollout_step & mode
forecast.inputs=read -> inputs
forecast.init_every=7h -> init_every
forecast.init_every=0h -> init_every
forecast.init_every=-6h -> init_every
forecast.init_every=100000d -> init_every
forecast.init=2018-02-30 -> 2018-02-30
forecast.init=soon -> soon
forecast.init='' -> init
forecast.init=2000-01-01T25 -> 2000-01-01T25
forecast.init=2000-01-25/2000-01-20 -> 2000-01-25
forecast.init=1950 -> 1950
forecast.init=2000-01-21,2000-01-21 -> 2000-01-21
forecast.members=1 -> member
forecast.members=0 -> member
forecast.members=4 -> noise
forecast.members=[] -> member
forecast.members={weights: [nowhere.safetensors, nowhere.safetensors]} -> nowhere.safetensors
forecast.members={each: 1000000000000} -> member
forecast.seed=-1 -> forecast.seed
forecast.noise_scale=0 -> forecast.noise_scale
forecast.noise_scale=.inf -> forecast.noise_scale
forecast.noise_scale=2 -> noise_scale
forecast.dropout=true -> dropout
forecast.perturbation.amplitude=-1 -> amplitude
forecast.perturbation.amplitude=.inf -> amplitude
forecast.perturbation.kind=round -> perturbation
forecast.perturbation.amplitude=0.1 -> perturbation
forecast.batch_size=0 -> forecast.batch_size
forecast.device=tpu -> forecast.device
forecast.device=cuda:99 -> forecast.device
forecast.precision=int8 -> forecast.precision
forecast.storage_options=3 -> storage_options
"""

EVALUATION = """
evaluation.regions=[] -> evaluation.regions
evaluation.regions=[atlantis] -> atlantis
evaluation.regions=[global, global] -> global
evaluation.regions=[box:10/0/20/10] -> box
evaluation.regions=[box:10/0] -> box
evaluation.regions=[box:a/b/c/d] -> box
evaluation.regions=[box:nan/0/nan/10] -> box
evaluation.regions=[box:1/0.1/0.9/0.2] -> box
evaluation.regions=[global_land] -> land
evaluation.regions=global -> evaluation.regions
evaluation.by=[week] -> evaluation.by
evaluation.by=[season, season] -> season
evaluation.events=[t2m] -> t2m
evaluation.events=['t2m > 303'] -> t2m
evaluation.events=['t850 > hot'] -> hot
evaluation.events=['t850 > nan'] -> nan
evaluation.events=['t850 > inf'] -> inf
evaluation.events=['t850 > 280', 't850 > 280'] -> t850 > 280
evaluation.events=[''] -> event
evaluation.ridge_times=[6h] -> ridge_times
evaluation.ridge_times=[0h, -6h] -> ridge_times
evaluation.ridge_regression=true + evaluation.ridge_times=[0h, -7h] -> -7h
evaluation.resamples=10 -> evaluation.resamples
evaluation.resamples=1000000000000 -> evaluation.resamples
evaluation.resamples=.nan -> evaluation.resamples
evaluation.headline=[q700] -> q700
evaluation.headline=[z500, z500] -> z500
evaluation.headline=[z500x] -> z500x
evaluation.seeps=maybe -> evaluation.seeps
evaluation.nonsense=3 -> evaluation.nonsense
"""

DATA = """
run='' -> run
run=3 -> run
run=text.txt -> text.txt
data.store='' -> data.store
data.store=nowhere.zarr -> nowhere.zarr
data.store=empty -> empty
data.store=text.txt -> text.txt
data.store=run/forecast.zarr -> forecast.zarr
data.store=LONG -> store
data.source=planet -> data.source
data.source.kind=ftp -> data.source
data.channels=[] -> data.channels
data.channels=z500 -> data.channels
data.channels=[z500, z500] -> z500
data.channels=[z500x] -> z500x
data.channels=[z500.5] -> z500.5
data.channels=[z-500] -> z-500
data.channels=[t2m850] -> t2m850
data.channels=[q700] -> q700
data.channels=[3] -> data.channels
data.channels=[''] -> channel
data.static=[moon] -> data.static
data.static=[lsm, lsm] -> lsm
data.area={north: 0, west: 0, south: 10, east: 10} -> south
data.area={north: .nan, west: 0, south: 0, east: 10} -> north
data.area={north: 100, west: 0, south: 0, east: 10} -> north
data.area=europe -> data.area
data.regrid={} -> regrid
data.regrid={resolution: 7} -> resolution
data.regrid={resolution: 1e-9} -> resolution
data.regrid={resolution: .inf} -> resolution
data.regrid={resolution: .nan} -> resolution
data.regrid={gaussian: 1000000} -> gaussian
data.regrid={gaussian: 32, poles: true} -> poles
data.regrid={resolution: 45, method: spline} -> method
data.accumulation=0h -> accumulation
data.accumulation=-6h -> accumulation
data.period=2000-13 -> data.period
data.period=2001-02-30 -> data.period
data.period=2001/2000 -> data.period
data.period=2000/2000/2000 -> data.period
data.period=0000 -> data.period
data.period='' -> data.period
data.step=0h -> step
data.step=-6h -> step
data.step=6 -> data.step
data.step=5h -> step
data.step_offset=3h -> step_offset
data.daily=median -> data.daily
data.exclude=[2000-02-31] -> data.exclude
data.exclude=[2000-01-05, 2000-01-05] -> 2000-01-05
data.train=[] -> data.train
data.train=2000 -> share days
data.train={years: 2000, season: XXX} -> data.train
data.train={years: 2000, months: [13]} -> data.train
data.train={years: 2000, months: [1, 1]} -> data.train
data.train=[2001, 2000] -> data.train
data.test=2020 -> test
data.test=2000-01-22/2000-01-25 -> test
data.validation=2020 -> validation
data.climatology_window=0 -> climatology_window
data.climatology_window=-5 -> climatology_window
data.climatology_window=1000000000 -> climatology_window
data.tendency_lead=0h -> tendency_lead
data.tendency_lead=-6h -> tendency_lead
data.tendency_leads=[6h, 6h] -> tendency_leads
data.tendency_leads=[0h] -> tendency_leads
data.transforms={tp: {log1p: 1}} -> tp
data.transforms={z500: {log1p: .inf}} -> log1p
data.transforms={z500: {log1p: 0}} -> log1p
data.channel_block=0 -> channel_block
data.channel_block=-3 -> channel_block
data.shard_mib=0 -> shard_mib
data.shard_mib=100000000000 -> shard_mib
data.mix=[3] -> mix
data.mix=[{store: run/store.zarr}, {store: run/store.zarr}] -> mix
data.variables={dust: {units: K}} -> dust
data.variables={dust: {long_name: dust, units: K, bounds: [.nan, 1]}} -> bounds
data.variables={dust: {long_name: dust, units: K, bounds: [0, .inf]}} -> bounds
data.variables={dust: {long_name: dust, units: bananas, bounds: [0, 1]}} -> bananas
data.variables={z: {long_name: dust, units: K, bounds: [0, 1]}} -> z
data.variables={Dust: {long_name: dust, units: K, bounds: [0, 1]}} -> Dust
channels=[z500] -> did you mean data.channels
nonsense=3 -> nonsense
model.depth -> section.key=value
=3 -> section.key=value
model.depth=[ -> model.depth & YAML
model.depth.deep=3 -> model.depth
model..depth=3 -> model..depth
run.depth=3 -> run
model.depth=3 + model.depth=4 -> model.depth
data.channels.9=q700 -> data.channels.9
"""

SOURCES = """
data.source.paths=[] -> data.source & paths
data.source.paths=[nowhere/*.nc] -> nowhere
data.source.paths=[empty] -> empty
data.source.paths=[''] -> paths
data.source.paths=[text.txt] -> text.txt
data.source.paths=[fifo.nc] -> fifo.nc
data.source.paths=[LONG] -> paths
data.source.paths=3 -> paths
data.source.paths=[z500.nc, z500.nc, t850.nc, u10.nc] -> z500.nc
data.source.paths=[broken.nc] -> broken.nc
data.source.exclude=[nothing.nc] -> nothing.nc
data.source.levels={z: high} -> levels
data.source.levels={z: -500} -> levels
data.source.levels={zz: 500} -> zz
data.source.units={z: bananas} -> bananas
data.source.units={zz: K} -> zz
data.source.rename={zz: t2m} -> zz
data.source.rename={z: nonsense} -> nonsense
data.source.kinds=[oddity] -> oddity
data.source.number=-1 -> number
data.source.number=7 -> number
data.source.experiment=9999 -> experiment
data.source.lead_time=soon -> lead_time
data.source.lead_time=-6h -> lead_time
data.source.lead_time=6h -> lead_time
data.source.sums=hourly -> sums
data.source.sums={zz: 1h} -> zz
data.source.snapshot=x -> snapshot
data.source.storage_options={token: x} -> storage_options
data.source.missing_chunks=zero -> missing_chunks
data.source={kind: planet, seed: -1} -> seed
data.source={kind: planet, mountains: .nan} -> mountains
data.source={kind: planet, turn: 400} -> turn
data.source={kind: planet, mountains: 0, turn: 5} -> turn
data.source={kind: planet} -> period
data.source={kind: planet} + data.period=1990 -> 1990
data.source={kind: planet} + data.period=2001-9999 -> planet
data.source={kind: weatherbench2, resolution: 1x1} -> resolution
data.source={kind: cds, grid: 0} -> grid
data.source={kind: cds, grid: .inf} -> grid
data.source={kind: cds, concurrent: 100} -> concurrent
data.source={kind: join, parts: []} -> parts
data.source={kind: chain, parts: []} -> parts
data.source={kind: chain, parts: [{source: {kind: planet}, start: 2001-02-30}]} -> start
data.source={kind: cubes, paths: [nowhere.hdr], crop: 0} -> crop
data.source={kind: leaves, size: 1} -> size
data.regrid={resolution: 0.001} -> grid
data.area={north: 0.1, west: 0, south: 0, east: 0.1} -> area
data.step=100d -> step
data.train=1950 -> train
"""

VERBS = """
-> Usage
trian run.yaml -> train
train -> CONFIG
train none.yaml -> none.yaml
train empty -> empty
train run.yaml --steps 3 -> --steps
train run.yaml --devices 0 -> --devices
train run.yaml --devices -1 -> --devices
train run.yaml --devices two -> --devices
train run.yaml --devices 100000 -> --devices 100000
train run.yaml --restarts 2 -> restarts & devices
train run.yaml --restarts 0 -> restarts & devices
train run.yaml --devices 1 --restarts -1 -> --restarts
train run.yaml --seeds 1 -> --seeds
train run.yaml --seeds 0 -> --seeds
train run.yaml --seeds 1000000 -> --seeds
train run.yaml --at-once 2 -> --at-once
train run.yaml --seeds 2 --at-once 0 -> --at-once
train run.yaml --seeds 2 --at-once 100000 -> --at-once
train run.yaml run.yaml -> run.yaml
check run.yaml --devices 0 -> --devices
check run.yaml --devices 100000 -> 100000
check run.yaml --devices 100000000000000 -> 100000000000000
check run.yaml --devices 1.5 -> --devices
check run.yaml --nonsense -> --nonsense
check run/store.zarr -> store.zarr
check run/weights.safetensors -> weights.safetensors
plan run.yaml -> --devices
plan run.yaml --devices 4 -> --memory
plan run.yaml --devices 0 --memory 80 -> --devices
plan run.yaml --devices 100000 --memory 80 -> 100000
plan run.yaml --devices 1000000000000 --memory 80 -> 1000000000000
plan run.yaml --devices 4 --memory 0 -> --memory
plan run.yaml --devices 4 --memory nan -> --memory
plan run.yaml --devices 4 --memory inf -> --memory
plan run.yaml --devices 4 --memory 80 --tflops 0 -> --tflops
plan run.yaml --devices 4 --memory 80 --tflops inf -> --tflops
plan run.yaml --devices 4 --memory 80 --node-bandwidth -1 -> --node-bandwidth
plan run.yaml --devices 4 --memory 80 --spare 1 -> --spare
plan run.yaml --devices 4 --memory 80 --price-per-gpu-hour 2 -> --samples
plan run.yaml --devices 4 --memory 80 --samples inf -> --samples
plan run.yaml --devices 4 --memory 80 --jobs 0 -> jobs
plan run.yaml --devices 4 --memory 80 --jobs 1000000 -> jobs
plan run.yaml --devices 4 --memory 80 --grid 100000x100000 -> 100000x100000
plan run.yaml --devices 4 --memory 80 --grid 1x1 -> --grid
plan run.yaml --devices 4 --memory 80 --grid large -> --grid
plan run.yaml --devices 4 --memory 80 --grid '' -> --grid
plan run.yaml --devices 4 --memory 80 training.batch_size=1000000000 -> batch_size
plan run.yaml --devices 4 --memory 80 model.depth=1000000 -> depth
prepare run.yaml --json -> --json & --dry-run
prepare run.yaml --bandwidth 10 -> --bandwidth & --dry-run
prepare run.yaml --dry-run --bandwidth 0 -> --bandwidth
prepare run.yaml --dry-run --bandwidth nan -> --bandwidth
prepare run.yaml --dry-run --bandwidth inf -> --bandwidth
prepare run.yaml --dry-run --json --bandwidth 10 -> --bandwidth
prepare run.yaml --dry-run --memory 0 -> memory
prepare run.yaml --dry-run --memory inf -> memory
prepare run.yaml --dry-run --memory 1e-9 -> memory
prepare run.yaml --dry-run --workers 0 -> workers
prepare run.yaml --dry-run --scheduler '' -> scheduler
prepare run.yaml --scheduler nonsense -> scheduler
prepare run.yaml --workers 1.5 -> --workers
prepare run/store.zarr -> store.zarr
prepare run.yaml data.store=text.txt -> text.txt
prepare run.yaml data.store=empty/../text.txt/store.zarr -> text.txt
append run.yaml data.store=nowhere.zarr -> nowhere.zarr
append run.yaml --dry-run -> --dry-run
append run.yaml --workers 0 -> workers
append run.yaml --memory nan -> memory
append run.yaml data.channel_block=1 -> channel_block
append run.yaml data.period=2000-01-03/2000-01-10 -> period
verify nowhere.zarr -> nowhere.zarr
verify empty -> empty
verify text.txt -> text.txt
verify '' -> store
verify run/forecast.zarr -> forecast.zarr
verify run/store.zarr data.period=2000 -> data.period
verify run/store.zarr nonsense -> nonsense
verify run/store.zarr --sample 0 -> sample
verify run/store.zarr --sample -3 -> sample
verify run/store.zarr --output empty -> empty
verify run/store.zarr --output nowhere/x.json -> nowhere
verify run/store.zarr --output '' -> output
verify run/store.zarr --workers 0 -> workers
verify run/store.zarr --scheduler nonsense -> scheduler
forecast nowhere.safetensors --store run/store.zarr -> nowhere.safetensors
forecast text.safetensors --store run/store.zarr -> text.safetensors
forecast empty --store run/store.zarr -> empty
forecast run/store.zarr --store run/store.zarr -> run/store.zarr
forecast run/forecast.zarr --store run/store.zarr -> run/forecast.zarr
forecast run/weights.safetensors -> --store
forecast run/weights.safetensors --store nowhere.zarr -> nowhere.zarr
forecast run/weights.safetensors --store empty -> empty
forecast run/weights.safetensors --store run/weights.safetensors -> weights.safetensors
forecast run/weights.safetensors --store run/forecast.zarr --output x.zarr -> forecast.zarr
forecast run/weights.safetensors --store run/store.zarr training.steps=3 -> training
forecast run/weights.safetensors --store run/store.zarr forecast.nonsense=3 -> nonsense
forecast run/weights.safetensors --store run/store.zarr parallel.nonsense=3 -> nonsense
forecast run.yaml --lead 6 -> unit
forecast run.yaml --lead -> --lead
forecast run.yaml --lead '' -> --lead
forecast run.yaml --lead 6h 6h -> lead
forecast run.yaml --lead 0h -> lead
forecast run.yaml --lead 7h --output x.zarr -> 7h
forecast run.yaml --rollout 6 -> unit
forecast run.yaml --rollout 5h -> 5h
forecast run.yaml --rollout 6h forecast.mode=direct -> mode
forecast run.yaml --lead 6h forecast.lead_times=[12h] -> lead
forecast run.yaml --init '' -> --init
forecast run.yaml --init soon --output x.zarr -> soon
forecast run.yaml --init 2000-02-30 --output x.zarr -> 2000-02-30
forecast run.yaml --init 2000-01-21T05 --output x.zarr -> 2000-01-21T05
forecast run.yaml --init 1950 --output x.zarr -> 1950
forecast run.yaml --output text.txt -> text.txt
forecast run.yaml --output '' -> --output
forecast run.yaml --output run/store.zarr -> run/store.zarr
forecast run.yaml --output empty_not -> empty_not
forecast run.yaml --devices 0 -> devices
forecast run.yaml --devices 100000 -> 100000
forecast run.yaml --base nowhere -> base
forecast run.yaml --members -> --members
forecast run.yaml --members 1 -> member
forecast run.yaml --members nowhere.safetensors other.safetensors -> nowhere.safetensors
forecast run.yaml --members run run -> run
forecast run.yaml --allow-missing --output x.zarr -> missing
evaluate nowhere.zarr --store run/store.zarr -> nowhere.zarr
evaluate empty --store run/store.zarr -> empty
evaluate text.txt --store run/store.zarr -> text.txt
evaluate '' --store run/store.zarr -> forecast
evaluate run/store.zarr --store run/store.zarr -> run/store.zarr
evaluate run/weights.safetensors --store run/store.zarr -> weights.safetensors
evaluate run/forecast.zarr -> --store
evaluate run/forecast.zarr --store nowhere.zarr -> nowhere.zarr
evaluate run/forecast.zarr --store run/forecast.zarr -> forecast.zarr
evaluate run/forecast.zarr --store run/store.zarr evaluation.nonsense=3 -> nonsense
evaluate run/forecast.zarr --store run/store.zarr training.steps=3 -> training
evaluate run/forecast.zarr --store run/store.zarr evaluation=3 -> evaluation
evaluate run/forecast.zarr --store run/store.zarr nonsense -> nonsense
evaluate run.yaml --region -> --region
evaluate run.yaml --region '' -> region
evaluate run.yaml --region atlantis -> atlantis
evaluate run.yaml --region global global -> global
evaluate run.yaml --region a:10/0/5/10 a:20/0/5/10 -> a
evaluate run.yaml --region x:5/0/10/10 -> x
evaluate run.yaml --by -> --by
evaluate run.yaml --by week -> week
evaluate run.yaml --event -> --event
evaluate run.yaml --event t850 -> t850
evaluate run.yaml --event 't2m > 3' -> t2m
evaluate run.yaml --event 't850 > 280 apples' -> apples
evaluate run.yaml --event 't850 > 280' 't850>280' -> t850
evaluate run.yaml --against -> --against
evaluate run.yaml --against nowhere.zarr -> nowhere.zarr
evaluate run.yaml --against run/store.zarr -> store.zarr
evaluate run.yaml --against run/forecast.zarr -> forecast.zarr
evaluate run.yaml --against a=run/forecast.zarr a=run/forecast.zarr -> a
evaluate run.yaml --output empty -> empty
evaluate run.yaml --output nowhere/x.nc -> nowhere
evaluate run.yaml --output text.txt/x.nc -> text.txt
evaluate run.yaml --workers 0 -> workers
evaluate run.yaml --scheduler nonsense -> scheduler
report nowhere.nc -> nowhere.nc
report empty -> empty
report text.txt -> text.txt
report run/store.zarr -> store.zarr
report run/forecast.zarr -> forecast.zarr
report z500.nc -> z500.nc
report run/scores.nc --maps -> --store
report run/scores.nc evaluation.headline=[z500] -> evaluation.headline
report run/scores.nc nonsense -> nonsense
report run.yaml --forecast nowhere.zarr -> nowhere.zarr
report run.yaml --forecast run/store.zarr -> store.zarr
report run/scores.nc --forecast run/forecast.zarr -> --store
report run.yaml --store nowhere.zarr -> nowhere.zarr
report run.yaml --store run/forecast.zarr -> forecast.zarr
report run.yaml --case -> --case
report run.yaml --case soon -> soon
report run.yaml --case 1950-01-01T00 -> 1950
report run.yaml --case 2000-02-30 -> 2000-02-30
report run/scores.nc --case 2000-01-21T00 -> --store
report run.yaml --compare -> --compare
report run.yaml --compare nowhere.nc -> nowhere.nc
report run.yaml --compare text.txt -> text.txt
report run.yaml --compare run/scores.nc -> scores.nc
report run.yaml --force -> --force & --compare
report run.yaml --quality nowhere.json -> nowhere.json
report run.yaml --quality empty -> empty
report run.yaml --quality text.txt -> text.txt
report run.yaml --output empty -> empty
report run.yaml --output nowhere/x.html -> nowhere
demo nonsense -> nonsense
demo model.dpeth=3 -> model.depth
"""

FILES: dict[str, tuple[bytes, str]] = {
    "empty.yaml": (b"", "empty.yaml & run & data"),
    "list.yaml": (b"- run: x\n", "list.yaml"),
    "text.yaml": (b"just words\n", "text.yaml"),
    "number.yaml": (b"3\n", "number.yaml"),
    "broken.yaml": (b"run: [\n", "broken.yaml & YAML"),
    "latin.yaml": ("run: é\n".encode("latin-1"), "latin.yaml & UTF-8"),
    "zeros.yaml": (b"\0\0\0\0", "zeros.yaml"),
    "tabs.yaml": (b"run: x\n\tdata: y\n", "tabs.yaml & line 2"),
    "tagged.yaml": (b"run: !!python/object:os.system x\n", "tagged.yaml"),
    "deep.yaml": (b"run: " + b"[" * 5000 + b"]" * 5000, "deep.yaml"),
    "laughs.yaml": (
        b"a: &a [x, x, x, x, x, x, x, x, x]\n"
        + b"".join(
            f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n".encode() for m, n in zip("abcdefg", "bcdefgh", strict=True)
        ),
        "laughs.yaml",
    ),
    "numbered.yaml": (b"1: 2\n", "numbered.yaml & 1"),
    "twice.yaml": (b"run: x\nmodel: {depth: 1}\nmodel: {depth: 2}\n", "twice.yaml & model & twice & line 3"),
    "key_twice.yaml": (b"run: x\nmodel:\n  depth: 1\n  depth: 2\n", "key_twice.yaml & depth & twice & line 4"),
    "null.yaml": (b"run: x\ndata:\nmodel:\n", "null.yaml & data"),
    "long.yaml": (b"run: x\ndata: {store: x, source: {kind: planet}, channels: [" + b"q" * 2_800_000 + b"]}\n", "long"),
    "many.yaml": (
        b"run: x\ndata: {store: x, source: {kind: planet}, channels: ["
        + b", ".join(b"x%d" % n for n in range(20000))
        + b"]}\n",
        "many.yaml & x0",
    ),
    "mistyped.yaml": (b"run: x\nmodel: {" + b", ".join(b"k%d: 1" % n for n in range(5000)) + b"}\n", "mistyped.yaml"),
}


class Case(NamedTuple):
    """One wrong input."""

    arguments: list[str]
    words: list[str]
    """That the message must hold."""

    def __str__(self) -> str:
        return shlex.join(self.arguments)


def _cases(table: str, *before: str) -> list[Case]:
    found = []
    for line in table.strip().splitlines():
        given, words = line.rsplit("->", 1)
        given = given.replace("LONG", LONG)
        arguments = [part.strip() for part in given.split(" + ")] if before else shlex.split(given)
        found.append(Case([*before, *arguments], [word.strip() for word in words.split("&")]))
    return found


GROUPS: dict[str, list[Case]] = {
    "model": _cases(MODEL, "check", "run.yaml"),
    "training": _cases(TRAINING, "check", "run.yaml"),
    "parallel": _cases(PARALLEL, "check", "run.yaml"),
    "forecast": _cases(FORECAST, "check", "run.yaml"),
    "evaluation": _cases(EVALUATION, "check", "run.yaml"),
    "data": _cases(DATA, "check", "run.yaml"),
    "sources": _cases(SOURCES, "prepare", "run.yaml", "data.store=new.zarr", "--dry-run"),
    "verbs": _cases(VERBS),
    "files": [Case(["check", name], words.split(" & ")) for name, (_, words) in FILES.items()]
    + _cases("check folder.yaml -> folder.yaml\ncheck fifo.yaml -> fifo.yaml\ncheck LONG.yaml -> configuration"),
}


class _TooLong(BaseException):
    """Of the alarm, so that nothing catches it."""


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fault_of(case: Case, seconds: float = SECONDS) -> tuple[str, str]:
    """What is wrong with how an input is refused ('' where nothing is), and all that was said."""
    said = io.StringIO()
    notes = logging.StreamHandler(said)
    logging.getLogger().addHandler(notes)
    kind = ""
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), _within(seconds):
            status = run_command(case.arguments)
    except _TooLong:
        return "hang", said.getvalue()
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        logging.getLogger().removeHandler(notes)
    text = said.getvalue()
    plain = re.sub(r"[\s│╭╮╰╯─]+", " ", text)
    if "fault of weatherfm" in text or status == 1:
        kind = "fault"
    elif status == 0:
        kind = "silence"
    elif "Traceback" in text:
        kind = "traceback"
    elif len(text) > LONGEST or len(text.splitlines()) > LINES:
        kind = "long"
    elif _said_twice(text):
        kind = "twice"
    elif not all(word.lower() in plain.lower() for word in case.words):
        kind = "unnamed"
    return kind, text


def _said_twice(text: str) -> bool:
    """A problem is one, whichever links of `check` it is of."""
    told = [line.split(maxsplit=2)[-1] for line in text.splitlines() if line.startswith("PROBLEM")]
    return len(set(told)) < len(told)


def make_world(folder: Path) -> None:
    """A finished run (`finished_run`), and odd things beside it."""
    finish_run(folder)
    (folder / "empty").mkdir()
    (folder / "folder.yaml").mkdir()
    (folder / "empty_not").mkdir()
    (folder / "empty_not" / "precious.txt").write_text("mine")
    for name in ("text.txt", "text.safetensors", "broken.nc"):
        (folder / name).write_text("nothing of the kind\n")
    for name in ("fifo.yaml", "fifo.nc"):
        os.mkfifo(folder / name)
    for name, (content, _) in FILES.items():
        (folder / name).write_bytes(content)


def main() -> int:
    """Run all, or those whose text holds what is given; print every fault and count them."""
    kinds: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        make_world(Path(folder))
        os.chdir(folder)
        for group, cases in GROUPS.items():
            for case in cases:
                if len(sys.argv) > 1 and not re.search(sys.argv[1], f"{group}: {case}"):
                    continue
                kind, text = fault_of(case)
                kinds[kind or "refused"] += 1
                if kind or len(sys.argv) > 1:
                    shown = text if len(text) < 1500 else f"{text[:700]} ... ({len(text)} characters)"
                    print(f"--- {kind or 'refused'}: {group}: {str(case)[:200]}\n{shown}", flush=True)  # noqa: T201
        os.chdir("/")
    print(dict(kinds))  # noqa: T201
    return 0 if set(kinds) <= {"refused"} else 1


if __name__ == "__main__":
    sys.exit(main())
