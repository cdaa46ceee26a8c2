"""A run from settings to results, and its evaluation afterwards; what the commands call.

runs         what a user asked for, found to fit the data and the devices
phases       its phases: a model each, with the data that it reads, built once
pipeline     phase after phase, from the first update to the results
selection    what picks a checkpoint
judging      evaluation of a trained model, and of the baselines beside it
diffusing    the same with its reverse process changed
results      what results.json and per_user.parquet hold
generation   what a generator makes: items ahead of sequences
run_folders  whether a folder holds a run
workdirs     the folder of a run; json_files in it, and exports, arrays that phases hand on
restore      a workdir read back
provenance   what a figure needs beside it; signals, how a run is stopped
tuning       a search over many runs
"""
