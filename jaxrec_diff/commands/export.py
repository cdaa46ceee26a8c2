"""`bin/export`: a model as a program that serves without this package."""

from pathlib import Path

from jaxrec_diff.commands.terminal import (
    FILE,
    PLAIN,
    SAMPLER,
    Accepts,
    explain,
    quiet_start,
    refuse,
    sampler_of,
    split_flags,
    trained_workdir,
    whole,
)

USAGE = """\
usage: bin/export --workdir=DIR --output=FOLDER [--k=20] [--include-seen]
                  [--data=SOURCE] [--sampler=KIND] [--sampler-steps=N]
                  [--new-items=FILE]
                  [--section.field=VALUE ...]

  bin/export --workdir=runs/dimerec-clicks --output=serving/dimerec --k=50

Writes one StableHLO program (history -> top k; cpu, cuda and tpu; any number of
rows), the weights, the vocabulary and a README with the five lines that serve
it. With --new-items, vectors as for --data.item-features, the program knows items
that training never met, of a run with frozen vectors.
"""
ACCEPTS = Accepts(
    {
        "workdir": FILE,
        "output": FILE,
        "k": PLAIN,
        "data": FILE,
        "new-items": FILE,
        "sampler": SAMPLER,
        "sampler-steps": PLAIN,
    },
    ("include-seen",),
    fields="",
)


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE)
    workdir = trained_workdir(flags)
    if "output" not in flags.bare:
        return refuse("name a folder for the program: --output=FOLDER")
    output = Path(flags.bare["output"])
    if output.exists() and (output.is_file() or any(output.iterdir())):
        return refuse(f"{output} is not empty; name a new folder")
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        return refuse("the export needs flatbuffers: pip install 'jaxrec-diff[export]'")
    quiet_start()
    from jaxrec_diff.experiments import restore
    from jaxrec_diff.inference import export, new_items

    trained = restore.reopen(workdir, flags.dotted, flags.bare.get("data"), sampler_of(flags))
    restored = restore.restore(trained, workdir)
    if "new-items" in flags.bare:
        restored = new_items.extended(restored, workdir, Path(flags.bare["new-items"]))
    sizes = export.export(
        restored,
        output,
        k=whole(flags, "k", 20),
        include_seen="include-seen" in flags.switches,
    )
    for file, size in sizes.items():
        print(f"{size:>12,} bytes  {output / file}")
    return 0
