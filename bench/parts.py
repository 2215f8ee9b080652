"""The parts of the benchmarks, by name. What a part needs is imported when it runs."""

from bench.prepared import WORK, Say
from bench.results import Results

SHORT_RESULTS = WORK / "results"  # of the short form, which nobody commits
CHECKED = ("training", "export", "serving")  # have ratios
SCATTERED = "json"  # in a ratio's name: parsing it in Python varies by half from round to round, where cores are shared


def training(short: bool, say: Say) -> Results:
    from bench import training

    return training.throughput(short, say)


def epochs(short: bool, say: Say) -> Results:
    from bench import training

    return training.epochs(short, say)


def export(short: bool, say: Say) -> Results:
    from bench import export

    return export.run(short, say)


def serving(short: bool, say: Say) -> Results:
    from bench.serving import part

    return part.run(short, say)


def tuning(short: bool, say: Say) -> Results:
    from bench.serving import tuning

    return tuning.run(short, say)


def pipeline(short: bool, say: Say) -> Results:
    from bench import pipeline

    return pipeline.run(short, say)


def cluster(short: bool, say: Say) -> Results:
    from bench import cluster

    return cluster.run(short, say)


def scaling(short: bool, say: Say) -> Results:
    from bench import scaling

    return scaling.run(short, say)


def images(short: bool, say: Say) -> Results:
    from bench import images

    return images.run(short, say)


PARTS = {
    part.__name__: part for part in (training, epochs, export, serving, tuning, pipeline, cluster, scaling, images)
}
